"""ONNX files that are refused: one line each, which says got, wanted and what to do."""

import contextlib
import os

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from irstd.compile.onnx_source import load_onnx_source
from irstd.errors import ExportError

node = helper.make_node
WEIGHT = np.ones((1, 1, 3, 3), np.float32)


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def make_net(nodes=None, *, inputs=None, outputs=None, opset=17, ir=8, constants=None):
    nodes = nodes or [node("Conv", ["image", "weight"], ["logits"], pads=[1] * 4)]
    constants = {"weight": WEIGHT} if constants is None else constants
    graph = helper.make_graph(
        nodes,
        "net",
        inputs or [value("image", (1, 1, 8, 8))],
        outputs or [value("logits", (1, 1, 8, 8))],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


@pytest.fixture
def refusal(tmp_path):
    """Return a function from file content and --imgsz to the message of the refusal."""

    def read(content, size_hw=None):
        path = tmp_path / "net.onnx"
        path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
        with pytest.raises(ExportError) as caught:
            load_onnx_source(path, size_hw)
        message = str(caught.value)
        assert message.startswith(str(path))
        assert "\n" not in message
        assert len(message) < len(str(path)) + 400
        return message.removeprefix(f"{path}: ")

    return read


def test_the_sound_one_is_accepted(tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(make_net(), path)
    assert load_onnx_source(path).size_hw == (8, 8)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ExportError, match=r"no such file; wanted an \.onnx file"):
        load_onnx_source(tmp_path / "none.onnx")
    with pytest.raises(ExportError, match="cannot be read"):
        load_onnx_source(tmp_path)


def test_empty_file(refusal):
    assert "the file is empty" in refusal(b"")


def test_file_beyond_protobuf(tmp_path):
    path = tmp_path / "big.onnx"
    with path.open("wb") as file:
        os.truncate(file.fileno(), 1 << 31)  # sparse: takes no space
    with pytest.raises(ExportError, match=r"2\.1 GB; wanted one ONNX file below 2 GB"):
        load_onnx_source(path)


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04 a zip", b"\x00" * 64, b"not a model", b"\x08\x08"]
)
def test_other_files(content, refusal):
    assert "ONNX" in refusal(content)


def test_truncated(refusal):
    content = make_net().SerializeToString()
    for length in range(1, len(content), 7):
        refusal(content[:length])


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_flipped_bytes_never_escape(data, tmp_path_factory):
    """Damage is refused or harmless; it never becomes another exception."""
    content = bytearray(make_net().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("flipped", numbered=True) / "net.onnx"
    path.write_bytes(content)
    with contextlib.suppress(ExportError):
        load_onnx_source(path, (8, 8))


def test_newer_ir_version(refusal):
    message = refusal(make_net(ir=onnx.IR_VERSION + 1))
    assert f"IR version {onnx.IR_VERSION + 1} is newer than {onnx.IR_VERSION}" in message


@pytest.mark.parametrize("opset", [6, 22, 99])
def test_opset_out_of_range(opset, refusal):
    assert f"opset {opset}; wanted 7 to 21, export" in refusal(make_net(opset=opset))


def test_no_opset(refusal):
    model = make_net()
    del model.opset_import[:]
    assert "opset 0; wanted 7 to 21" in refusal(model)


def test_custom_operator(refusal):
    model = make_net([node("DeformConv", ["image", "weight"], ["logits"], domain="mmdeploy")])
    model.opset_import.append(helper.make_opsetid("mmdeploy", 1))
    assert refusal(model).startswith("operator mmdeploy.DeformConv is not a standard one; export")


def test_custom_operator_in_a_branch(refusal):
    inner = [node("Trick", ["image"], ["y"], domain="custom")]
    body = helper.make_graph(inner, "body", [], [value("y", None)])
    choose = node("If", ["flag"], ["logits"], then_branch=body, else_branch=body)
    model = make_net([choose], constants={"flag": np.bool_(True)})
    assert "operator custom.Trick" in refusal(model)


def test_unknown_standard_operator(refusal):
    assert "not sound ONNX" in refusal(make_net([node("Sharpen", ["image"], ["logits"])]))


def test_operator_that_is_newer_than_the_opset(refusal):
    model = make_net([node("Gelu", ["image"], ["logits"])], opset=17)  # of opset 20
    assert "not sound ONNX" in refusal(model)


def test_external_weights(refusal, tmp_path):
    path = tmp_path / "split.onnx"
    onnx.save(make_net(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    assert refusal(path.read_bytes()).startswith("weights are in external files; wanted one file")


def test_external_path_is_never_opened(refusal, tmp_path):
    """A path out of the folder is refused for being external, not followed."""
    model = make_net()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")
    assert "external files" in refusal(model)


@pytest.mark.parametrize(
    ("shape", "kind", "expected"),
    [
        ((1, 2, 8, 8), TensorProto.FLOAT, "with C fixed at 1 or 3"),
        ((1, 8, 8, 3), TensorProto.FLOAT, "NCHW instead of NHWC"),
        ((1, 8, 8), TensorProto.FLOAT, r"(1, 8, 8); wanted (N, C, H, W)"),
        ((1, None, 8, 8), TensorProto.FLOAT, "with C fixed at 1 or 3"),
        (None, TensorProto.FLOAT, "shape"),
        ((4, 1, 8, 8), TensorProto.FLOAT, "batch 4; wanted batch 1"),
        ((1, 1, 8, 8), TensorProto.FLOAT16, "is FLOAT16; wanted FLOAT (float32)"),
        ((1, 1, 8, 8), TensorProto.UINT8, "is UINT8; wanted FLOAT (float32)"),
        ((1, 1, 8, 8), TensorProto.DOUBLE, "is DOUBLE; wanted FLOAT (float32)"),
    ],
)
def test_other_inputs(shape, kind, expected, refusal):
    nodes = [node("Cast", ["image"], ["logits"], to=TensorProto.FLOAT)]
    model = make_net(nodes, inputs=[value("image", shape, kind)], outputs=[value("logits", None)])
    assert expected in refusal(model, (8, 8))


@pytest.mark.parametrize(
    "shape", [("N", 1, 8, 8), (1, 1, "H", 8), (1, 1, 8, "W"), ("N", 1, "H", "W"), (0, 1, 8, 8)]
)
def test_symbolic_shape_names_the_flag(shape, refusal):
    model = make_net(inputs=[value("image", shape)], outputs=[value("logits", None)])
    assert refusal(model).endswith("give the height and width with --imgsz HxW")


def test_flag_that_contradicts_the_file(refusal):
    assert "fixed at 8x8 px, got --imgsz 8x16; leave the flag out" in refusal(make_net(), (8, 16))


def test_several_inputs(refusal):
    model = make_net(
        [node("Add", ["image", "past"], ["logits"])],
        inputs=[value("image", (1, 1, 8, 8)), value("past", (1, 1, 8, 8))],
    )
    assert refusal(model).startswith("2 inputs (image, past); wanted one image input")


def test_several_outputs(refusal):
    model = make_net(
        [node("Relu", ["image"], ["logits"]), node("Neg", ["image"], ["side"])],
        outputs=[value("logits", (1, 1, 8, 8)), value("side", (1, 1, 8, 8))],
    )
    assert refusal(model).startswith(
        "2 outputs (logits, side); wanted one image input and one mask"
    )


def test_sequence_as_input(refusal):
    model = make_net(
        [node("ConcatFromSequence", ["image"], ["logits"], axis=0)],
        inputs=[helper.make_tensor_sequence_value_info("image", TensorProto.FLOAT, (1, 1, 8, 8))],
    )
    assert "is no tensor; wanted FLOAT" in refusal(model)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([node("GlobalAveragePool", ["image"], ["logits"])], "wanted a mask (1, 1, 8, 8)"),
        ([node("Concat", ["image", "image"], ["logits"], axis=1)], "wanted a mask"),
        ([node("Flatten", ["image"], ["logits"])], "wanted a mask"),
        ([node("MaxPool", ["image"], ["logits"], kernel_shape=[2, 2])], "(1, 1, 7, 7)"),
        ([node("Cast", ["image"], ["logits"], to=TensorProto.FLOAT16)], "is FLOAT16; wanted FLOAT"),
        ([node("ArgMax", ["image"], ["logits"], axis=1)], "is INT64; wanted FLOAT"),
    ],
)
def test_other_outputs(nodes, expected, refusal):
    kind = {"Cast": TensorProto.FLOAT16, "ArgMax": TensorProto.INT64}.get(nodes[0].op_type, 1)
    assert expected in refusal(make_net(nodes, outputs=[value("logits", None, kind)]))


def test_size_that_does_not_fit_the_network(refusal):
    nodes = [
        node("MaxPool", ["image"], ["a"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        node("Resize", ["a", "", "scales"], ["b"]),
        node("Add", ["b", "image"], ["logits"]),
    ]
    model = make_net(
        nodes,
        inputs=[value("image", (1, 1, "H", "W"))],
        outputs=[value("logits", None)],
        constants={"scales": np.float32([1, 1, 2, 2])},
    )
    message = refusal(model, (9, 11))
    assert (
        "input size 9x11 does not fit the network; wanted sides that are multiples of 2" in message
    )
    assert message.endswith("for example --imgsz 10x12")


def test_declared_size_that_the_graph_contradicts(refusal):
    message = refusal(make_net([node("MaxPool", ["image"], ["logits"], kernel_shape=[3, 3])]))
    assert "not sound ONNX" in message
    assert message.endswith("; export the network again")


def test_cycle(refusal):
    nodes = [
        node("Add", ["image", "b"], ["a"]),
        node("Relu", ["a"], ["b"]),
        node("Neg", ["b"], ["logits"]),
    ]
    assert "not sound ONNX" in refusal(make_net(nodes))


def test_no_nodes(refusal):
    model = make_net()
    del model.graph.node[:]
    assert "without operators" in refusal(model)
