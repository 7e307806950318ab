"""Plugin libraries: their headers, their files, and what NVIDIA's parser makes of their nodes."""

import os
import subprocess
import sys

import pytest
from onnx import TensorProto, helper

from irstd.compile.plugin_graph import plugin_graph
from irstd.errors import BuildError, MissingDependency, UsageError
from irstd.runtime.kernels.tensorrt import plugin_library
from irstd.runtime.kernels.tensorrt.plugin_library import (
    build_plugin,
    find_tensorrt_include,
    tensorrt_version,
)
from tests.kernels.tensorrt_headers import each_operator, with_headers

# In a process of its own: the parser of TensorRT for RTX makes a plugin of a node, and aborts when
# the network takes it, because that library runs none.
PARSE = """
import sys, tensorrt_rtx_bindings as trt
class Logger(trt.ILogger):
    def log(self, severity, message):
        print(message, file=sys.stderr, flush=True)
logger = Logger()
builder = trt.Builder(logger)
assert builder.get_plugin_registry().load_library(sys.argv[1])
network = builder.create_network(0)
parser = trt.OnnxParser(network, logger)
parser.parse(sys.stdin.buffer.read())
"""
NODES = {
    "haar_gate": ("HaarGate", {"x": (1, 4, 8, 8), "weight": (4, 2, 7, 7), "bias": (4,)}, {}),
    "spectral_split": (
        "SpectralSplit",
        {
            "x": (1, 4, 32, 32), "cutoff": (4,), "gate_weight": (2, 2, 7, 7), "gate_bias": (2,),
            "gamma": (2, 4),
        },
        {},
    ),
    "ms_deform_attn": (
        "MSDeformAttn",
        {"value": (1, 20, 2, 8), "offsets": (1, 4, 2, 2, 4, 2), "logits": (1, 4, 2, 2, 4)},
        {"level_hw": [4, 4, 2, 2], "query_hw": [2, 2]},
    ),
}  # fmt: skip


def one_node_graph(op, **attributes):
    """Return the plugin graph of one operator, whose inputs are the network's."""
    name, shapes, own = NODES[op]
    node = helper.make_node(name, list(shapes), ["y"], name, domain="irstd", **own | attributes)
    inputs = [
        helper.make_tensor_value_info(key, TensorProto.FLOAT, shape)
        for key, shape in shapes.items()
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("irstd", 1)]
    graph = helper.make_graph([node], op, inputs, [output])
    return plugin_graph(helper.make_model(graph, opset_imports=opsets)).SerializeToString()


@with_headers
@each_operator
def test_the_genuine_parser_makes_the_plugin_of_the_node(op, headers, image):
    pytest.importorskip("tensorrt_rtx_bindings")
    library = build_plugin(op, image, tensorrt_include=headers)

    def said(**attributes):
        done = subprocess.run(
            [sys.executable, "-c", PARSE, str(library)],
            input=one_node_graph(op, **attributes),
            capture_output=True,
            timeout=120,
            check=False,
        )
        return (done.stdout + done.stderr).decode()

    name = NODES[op][0]
    assert f"Successfully created plugin: {name}" in said()
    if op == "ms_deform_attn":
        refused = said(level_hw=[4, 4, 2])
        assert "level_hw is not H0, W0 to H3, W3" in refused
        assert "Successfully created" not in refused


@with_headers
def test_a_plugin_of_other_kernels_is_another_file(headers, image, tmp_path):
    path = build_plugin("haar_gate", image, tensorrt_include=headers)
    assert build_plugin("haar_gate", image, tensorrt_include=headers) == path
    (tmp_path / "other").write_bytes(b"other kernels")
    assert build_plugin("haar_gate", tmp_path / "other", tensorrt_include=headers) != path


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("#define NV_TENSORRT_MAJOR 10 //!< Major\n#define NV_TENSORRT_MINOR 3\n"
         "#define NV_TENSORRT_PATCH 0\n", (10, 3, 0)),
        ("#define TRT_MAJOR_ENTERPRISE 11\n#define TRT_MINOR_ENTERPRISE 4\n"
         "#define TRT_PATCH_ENTERPRISE 2\n#define NV_TENSORRT_MAJOR TRT_MAJOR_ENTERPRISE\n"
         "#define NV_TENSORRT_MINOR TRT_MINOR_ENTERPRISE\n"
         "#define NV_TENSORRT_PATCH TRT_PATCH_ENTERPRISE\n", (11, 4, 2)),
    ],
    ids=["10.3", "11.4"],
)  # fmt: skip
def test_versions_are_read_in_both_styles(text, version, tmp_path):
    (tmp_path / "NvInferVersion.h").write_text(text)
    assert tensorrt_version(tmp_path) == version


@pytest.mark.parametrize("text", ["", "#define NV_TENSORRT_MAJOR TEN\n"])
def test_headers_without_a_version_are_refused(text, tmp_path):
    (tmp_path / "NvInferVersion.h").write_text(text)
    with pytest.raises(BuildError, match="does not say which TensorRT"):
        tensorrt_version(tmp_path)


def test_old_tensorrt_is_refused(image, tmp_path):
    parts = zip(("MAJOR", "MINOR", "PATCH"), (8, 6, 2), strict=True)
    text = "".join(f"#define NV_TENSORRT_{name} {value}\n" for name, value in parts)
    (tmp_path / "NvInferVersion.h").write_text(text)
    with pytest.raises(BuildError, match=r"TensorRT 8\.6\.2 .* wanted 10\.0 or later"):
        build_plugin("haar_gate", image, tensorrt_include=tmp_path, cuda_include=tmp_path)


def test_headers_of_another_version_than_the_library_are_refused(image, tmp_path):
    parts = zip(("MAJOR", "MINOR", "PATCH"), (10, 13, 3), strict=True)
    text = "".join(f"#define NV_TENSORRT_{name} {value}\n" for name, value in parts)
    (tmp_path / "NvInferVersion.h").write_text(text)
    folders = {"tensorrt_include": tmp_path, "cuda_include": tmp_path}
    with pytest.raises(BuildError, match=r"of TensorRT 10\.13\.3, the library is 10\.3: set"):
        build_plugin("haar_gate", image, tensorrt=(10, 3), **folders)


def test_headers_that_are_nowhere(monkeypatch, tmp_path):
    monkeypatch.setenv("TENSORRT_INCLUDE", str(tmp_path))
    monkeypatch.setattr(plugin_library.platform, "machine", lambda: "nowhere")
    with pytest.raises(MissingDependency, match="install libnvinfer-headers-dev, or set TENSORRT"):
        find_tensorrt_include()


def test_the_first_folder_with_headers_is_taken(monkeypatch, tmp_path):
    second = tmp_path / "second"
    second.mkdir()
    (second / "NvInferRuntime.h").touch()
    monkeypatch.setenv("TENSORRT_INCLUDE", f"{tmp_path}{os.pathsep}{second}")
    assert find_tensorrt_include() == second


def test_unknown_operators_and_missing_images_are_refused(image, tmp_path):
    with pytest.raises(UsageError, match="operator 'gabor_gate': wanted one of haar_gate"):
        build_plugin("gabor_gate", image)
    with pytest.raises(UsageError, match="no such file; wanted the compiled kernels of haar_gate"):
        build_plugin("haar_gate", tmp_path / "none")
