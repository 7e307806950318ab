"""Bad input to a build: one clear line, the right exit code, nothing half-written."""

import json
import os
import pickle
import shutil

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper


@pytest.fixture
def refused(compile_command, tiny_onnx, tmp_path):
    """Return a function that builds, expects a refusal, and returns (error, one line)."""

    def build(*words, code, kind, source=None):
        out = tmp_path / "out" / "a.irstd"
        start = ["build", *(source or [tiny_onnx(), "--normalize", "80,40"])]
        found, report, err = compile_command(*start, *words, "-o", out)
        error = report["error"]
        assert (found, error["type"], error["exit_code"]) == (code, kind, code), error
        last = err.splitlines()[-1]
        assert last == f"irstd-compile: {error['message']}"
        assert "Traceback" not in err
        assert not out.parent.exists()
        assert not list(tmp_path.rglob("*.part"))
        return error["message"]

    return build


INT8 = ("--precision", "int8")


def test_no_calibration_data(refused):
    assert "--data DIR" in refused(*INT8, code=2, kind="UsageError")


def test_calibration_folder_is_missing(refused, tmp_path):
    message = refused(*INT8, "--data", tmp_path / "none", code=1, kind="InputError")
    assert str(tmp_path / "none") in message


def test_calibration_folder_is_empty(refused, tmp_path):
    (tmp_path / "empty" / "images").mkdir(parents=True)
    message = refused(*INT8, "--data", tmp_path / "empty", code=1, kind="InputError")
    assert "no images in it" in message


def test_calibration_folder_is_a_file(refused, tmp_path):
    (tmp_path / "file").write_text("")
    refused(*INT8, "--data", tmp_path / "file", code=1, kind="InputError")


def spoil(data, image):
    """Replace every frame, so that whichever calibrates is the bad one."""
    for path in (data / "images").iterdir():
        cv2.imwrite(str(path), image)
    return data


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"no image at all", b"\x00" * 5000])
def test_unreadable_image_among_good_ones_is_named(content, refused, make_data):
    """One of six; it calibrates or verifies, and is found either way."""
    data = make_data()
    for name in ("001", "004"):  # one of each half (tests/compile/test_frame_sets.py)
        kept = (data / "images" / f"{name}.png").read_bytes()
        (data / "images" / f"{name}.png").write_bytes(content)
        message = refused(*INT8, "--data", data, code=1, kind="InputError")
        assert f"{name}.png" in message
        (data / "images" / f"{name}.png").write_bytes(kept)


def test_coloured_images(refused, make_data):
    image = np.zeros((32, 32, 3), np.uint8)
    image[..., 0] = np.arange(32)
    message = refused(*INT8, "--data", spoil(make_data(), image), code=1, kind="InputError")
    assert ".png: a coloured image" in message


@pytest.mark.parametrize(
    ("stored", "flag"), [(14, ()), (8, ("--bit-depth", "14")), (16, ("--bit-depth", "14"))]
)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_wrong_bit_depth_names_file_and_flag(stored, flag, precision, refused, make_data):
    data = make_data(bit_depth=stored)
    words = ("--precision", precision, *flag, "--data", data)
    message = refused(*words, code=1, kind="InputError")
    assert ".png: " in message
    assert "--bit-depth" in message


def test_all_black_set(refused, make_data):
    data = spoil(make_data(masks=False), np.zeros((32, 32), np.uint8))
    message = refused(*INT8, "--data", data, code=1, kind="CalibrationError")
    assert "all 3 calibration frames are flat (all black?)" in message


def test_labelled_set_without_targets(refused, make_data):
    data = make_data()
    for path in (data / "masks").iterdir():
        cv2.imwrite(str(path), np.zeros((32, 32), np.uint8))
    message = refused(*INT8, "--data", data, code=1, kind="CalibrationError")
    assert "none of the 3 labelled calibration frames holds a target" in message
    message = refused("--data", data, code=1, kind="InputError")
    assert "none of the 3 labelled frames to verify on" in message


def test_budget_on_unlabelled_data(refused, make_data):
    words = ("--data", make_data(masks=False), "--budget", "hse=-0.3")
    assert "has no masks/ folder" in refused(*words, code=2, kind="UsageError")
    assert "--data DIR" in refused("--budget", "hse=-0.3", code=2, kind="UsageError")


def graph(nodes, inputs, outputs, constants=()):
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, list(constants)),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def value(name, *shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


WEIGHT = onnx.numpy_helper.from_array(np.ones((2, 1, 3, 3), np.float32), "w")
BAD_GRAPHS = {
    "two inputs": (
        graph(
            [helper.make_node("Add", ["a", "b"], ["y"])],
            [value("a", 1, 1, 8, 8), value("b", 1, 1, 8, 8)],
            [value("y", 1, 1, 8, 8)],
        ),
        "2 inputs",
    ),
    "no mask": (
        graph(
            [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4)],
            [value("x", 1, 1, 8, 8)], [value("y", 1, 2, 8, 8)], [WEIGHT],
        ),
        "wanted a mask",
    ),
    "a class": (
        graph(
            [helper.make_node("ReduceMean", ["x"], ["y"], keepdims=0)],
            [value("x", 1, 1, 8, 8)],
            [value("y")],
        ),
        "wanted a mask",
    ),
    "whole numbers": (
        graph(
            [helper.make_node("Identity", ["x"], ["y"])],
            [value("x", 1, 1, 8, 8, kind=TensorProto.INT64)],
            [value("y", 1, 1, 8, 8, kind=TensorProto.INT64)],
        ),
        "INT64",
    ),
    "symbolic size": (
        graph(
            [helper.make_node("Relu", ["x"], ["y"])],
            [value("x", 1, 1, "H", "W")],
            [value("y", 1, 1, "H", "W")],
        ),
        "--imgsz HxW",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_GRAPHS)
def test_graph_that_is_no_image_to_mask_network(name, refused, tmp_path):
    model, reason = BAD_GRAPHS[name]
    path = tmp_path / "bad.onnx"
    path.write_bytes(model.SerializeToString())
    message = refused(source=[path, "--normalize", "80,40"], code=1, kind="ExportError")
    assert reason in message
    assert "bad.onnx" in message


@pytest.mark.parametrize("content", [b"", b"\x00", b"not a graph", b"\x08\x08\x12"])
def test_damaged_onnx_file(content, refused, tmp_path):
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    assert "bad.onnx" in refused(source=[path, "--normalize", "1,1"], code=1, kind="ExportError")


def test_truncated_onnx_file(refused, tiny_onnx):
    path = tiny_onnx("cut.onnx")
    path.write_bytes(path.read_bytes()[:-200])
    assert "cut.onnx" in refused(source=[path, "--normalize", "1,1"], code=1, kind="ExportError")


@pytest.mark.parametrize("suffix", ["pth", "pt", "pkl", "tar", "safetensors", "bin"])
def test_missing_checkpoint(suffix, refused, tmp_path):
    weights = tmp_path / f"none.{suffix}"
    source = ["acm", "--weights", weights, "--normalize", "1,1"]
    assert "no such file" in refused(source=source, code=1, kind="CheckpointError")


@pytest.mark.parametrize("suffix", ["pth", "pkl", "tar"])
def test_pickle_that_executes_code_is_not_executed(suffix, refused, tmp_path):
    pytest.importorskip("torch")
    marker = tmp_path / "executed"

    class Payload:
        def __reduce__(self):
            return (os.mkdir, (str(marker),))

    weights = tmp_path / f"evil.{suffix}"
    weights.write_bytes(pickle.dumps({"state_dict": Payload()}))
    source = ["acm", "--weights", weights, "--normalize", "1,1"]
    refused(source=source, code=1, kind="CheckpointError")
    assert not marker.exists()


def test_checkpoint_of_another_network(refused, tmp_path):
    torch = pytest.importorskip("torch")
    from irstd.compile.networks import NETWORKS

    module = NETWORKS["alcnet"].build(in_channels=1, norm="batch", input_norm_eps=1e-5)
    torch.save(module.state_dict(), tmp_path / "alcnet.pth")
    source = ["acm", "--weights", tmp_path / "alcnet.pth", "--normalize", "1,1"]
    assert "does not fit acm" in refused(source=source, code=1, kind="CheckpointError")


def test_checkpoint_without_normalisation(refused, tmp_path):
    torch = pytest.importorskip("torch")
    from irstd.compile.networks import NETWORKS

    module = NETWORKS["acm"].build(in_channels=1, norm="batch", input_norm_eps=1e-5)
    torch.save(module.state_dict(), tmp_path / "acm.pth")
    message = refused(source=["acm", "--weights", tmp_path / "acm.pth"], code=2, kind="UsageError")
    assert "--normalize MEAN,STD" in message


@pytest.mark.parametrize("kind", ["IsADirectoryError", "NotADirectoryError"])
def test_out_that_cannot_be_a_file(kind, compile_command, tiny_onnx, tmp_path):
    out = tmp_path / "out.irstd"
    if kind == "IsADirectoryError":
        out.mkdir()
    else:
        (tmp_path / "file").write_text("kept")
        out = tmp_path / "file" / "out.irstd"
    words = ["build", tiny_onnx(), "--normalize", "80,40", "-o", out]
    code, report, err = compile_command(*words)
    assert (code, report["error"]["type"]) == (1, kind)
    assert len(err.splitlines()) == 1


def test_portable_bundle_does_not_run_here(compile_command, tiny_onnx, make_data, tmp_path, capsys):
    from irstd.runtime import command as run_command

    out, data = tmp_path / "a.irstd", make_data()
    words = ["build", tiny_onnx(), "--normalize", "80,40", *INT8, "--data", data]
    assert compile_command(*words, "--target", "jetson-orin-nano", "-o", out)[0] == 0
    assert run_command.main([str(out), str(data / "images"), "--json"]) == 6
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["type"] == "BundleMismatch"
    assert "jetson-orin-nano" in error["message"]


def test_huge_image_size_is_refused_before_memory_is_asked_for(refused):
    message = refused("--imgsz", "99999x99999", code=2, kind="UsageError")
    assert "at most 16384" in message


def test_data_that_vanishes_is_named(refused, make_data, tmp_path):
    """A listed frame whose link leads nowhere."""
    data = make_data()
    for path in (data / "images").iterdir():
        path.unlink()
        path.symlink_to(tmp_path / "gone" / path.name)
    message = refused(*INT8, "--data", data, code=1, kind="InputError")
    assert ".png: " in message
    shutil.rmtree(data)
