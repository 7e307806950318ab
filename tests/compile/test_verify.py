"""A bundle still computes what it did, or somebody says which part does not."""

import dataclasses
import io
import json

import cv2
import numpy as np
import pytest

from irstd.bundle import read_bundle, write_bundle
from irstd.compile import verify as module
from irstd.compile.verify import verify_bundle
from irstd.errors import (
    BundleCorrupt,
    BundleError,
    InputError,
    MissingDependency,
    ParityFailed,
    UsageError,
)
from irstd.runtime import detector, sessions


def rewrite_members(path, change):
    """Write a sound bundle anew with other members: the hashes are true, the content is not."""
    bundle = read_bundle(path)
    members = {name: bundle.read(name) for name in bundle.members}
    change(members)
    write_bundle(path, bundle.manifest, members)
    return path


def array(data):
    return np.load(io.BytesIO(data))


def npy(values):
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_fresh_bundle_passes(precision, built):
    found = verify_bundle(built(precision))
    assert found.passed
    assert found.reference.passed
    assert found.deployed.passed
    assert found.verdict is None
    assert found.built_within_budget is True
    json.dumps(found.to_dict(), allow_nan=False)


def test_portable_bundle_is_computed_node_by_node(build):
    found = verify_bundle(build(precision="int8", target="jetson-orin-nano").path)
    assert found.engine.startswith("onnxruntime")
    assert "node by node" in found.engine
    assert found.deployed.max_abs_error == 0


@pytest.mark.parametrize("size", [(20, 30), (32, 32), (45, 70)])
def test_golden_frames_smaller_and_larger_than_the_engine(size, build, make_data):
    path = build(precision="int8", data=make_data("sized", size_hw=size)).path
    bundle = read_bundle(path)
    frame = array(bundle.read("golden/frame_000.npy"))
    assert frame.shape == (min(size[0], 32), min(size[1], 32))
    for kind in ("logits", "deployed"):
        assert array(bundle.read(f"golden/{kind}_000.npy")).shape == frame.shape
    assert verify_bundle(path).passed


def test_without_data_simulated_frames_are_golden(build):
    path = build(precision="fp32", data=None).path
    assert verify_bundle(path).passed
    assert "golden/frame_002.npy" in read_bundle(path).members


def test_data_scores_both_graphs(built, make_data):
    data = make_data("more", frames=4, seed=9)
    verdict = verify_bundle(built("int8"), data).verdict
    assert verdict.frames == 4
    assert verdict.accuracy.fp32.targets == verdict.accuracy.deployed.targets > 0
    assert verdict.accuracy.fp32 != verdict.accuracy.deployed


def test_list_restricts_the_data(built, make_data, tmp_path):
    (tmp_path / "two.txt").write_text("000\n003\n")
    data = make_data("more", frames=4, seed=9)
    assert verify_bundle(built("fp32"), data, tmp_path / "two.txt").verdict.frames == 2


def test_unlabelled_data_is_not_measured(built, make_data):
    verdict = verify_bundle(built("fp32"), make_data("bare", masks=False)).verdict
    assert (verdict.frames, verdict.accuracy) == (6, None)


def test_budget_of_the_caller_and_of_the_build(build, make_data, monkeypatch):
    path = build(precision="int8", budget="hse=-50").path
    data = make_data("more", frames=4, seed=9)
    real = module.judge

    def worse(before, after, budget):
        return real(before, dataclasses.replace(after, hse=before.hse - 5), budget)

    monkeypatch.setattr(module, "judge", worse)
    found = verify_bundle(path, data)
    assert found.passed
    assert found.verdict.budget == {"hse": -50.0}
    found = verify_bundle(path, data, budget={"hse": -1.0})
    assert not found.passed
    assert found.verdict.violations == ("hse changed by -5.000, allowed -1.000",)


@pytest.mark.parametrize("labelled", [False, None])
def test_budget_without_labelled_data(labelled, built, make_data):
    data = None if labelled is None else make_data("bare", masks=False)
    with pytest.raises(UsageError, match="--budget needs labelled frames"):
        verify_bundle(built("fp32"), data, budget={"hse": -1.0})


def test_frame_of_another_bit_depth_is_named(built, make_data):
    with pytest.raises(InputError, match=r"000\.png: uint16 pixels.*--bit-depth"):
        verify_bundle(built("fp32"), make_data("deep", bit_depth=14))


def test_mask_of_another_size_is_named(built, make_data):
    data = make_data("more", frames=2)
    cv2.imwrite(str(data / "masks" / "001.png"), np.full((4, 4), 255, np.uint8))
    with pytest.raises(InputError, match=r"001\.png: 4x4 px"):
        verify_bundle(built("fp32"), data)


@pytest.mark.parametrize(
    ("kind", "who"), [("logits", "the FP32 graph"), ("deployed", "openvino|onnx")]
)
def test_disagreeing_golden_frame_fails_parity(kind, who, built):
    def shift(members):
        name = f"golden/{kind}_001.npy"
        members[name] = npy(array(members[name]) + np.float32(3))

    path = rewrite_members(built("int8"), shift)
    with pytest.raises(ParityFailed, match=rf"({who}).*disagrees with the golden frames"):
        verify_bundle(path)


def test_other_weights_with_true_hashes_fail_parity(built, tmp_path, make_tiny):
    """What the golden frames are for: a graph swapped for another, everything else consistent."""
    import onnx

    def swap(members):
        model = onnx.load_model_from_string(members["model.fp32.onnx"])
        for tensor in model.graph.initializer:
            if tensor.name.startswith("left"):
                values = onnx.numpy_helper.to_array(tensor)
                tensor.CopyFrom(onnx.numpy_helper.from_array(values * 2, tensor.name))
        members["model.fp32.onnx"] = model.SerializeToString()

    with pytest.raises(ParityFailed, match="disagrees"):
        verify_bundle(rewrite_members(built("fp32"), swap))


SMALL, DOUBLE = npy(np.zeros((2, 2), np.float32)), npy(np.zeros((32, 32), np.float64))


def drop(name):
    return lambda members: members.pop(name)


def put(name, data):
    return lambda members: members.update({name: data})


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        (drop("golden/tolerance.json"), BundleError, "tolerance.json"),
        (put("golden/tolerance.json", b"{}"), BundleCorrupt, "tolerance.json is damaged"),
        (put("golden/tolerance.json", b"[1]"), BundleCorrupt, "tolerance.json is damaged"),
        (put("golden/tolerance.json", b"\xff"), BundleCorrupt, "tolerance.json is damaged"),
        (put("golden/tolerance.json", b'{"mean": "x", "worst": 1}'), BundleCorrupt, "is damaged"),
        (put("golden/tolerance.json", b'{"mean": 1e999, "worst": 1}'), BundleCorrupt, "finite"),
        (put("golden/tolerance.json", b'{"mean": -1, "worst": 1}'), BundleCorrupt, "finite"),
        (drop("golden/logits_001.npy"), BundleCorrupt, "3 golden frames, 2 and 3 logit maps"),
        (put("golden/frame_000.npy", b"no array"), BundleCorrupt, "frame_000.npy is not an array"),
        (put("golden/frame_000.npy", b""), BundleCorrupt, "frame_000.npy is not an array"),
        (put("golden/logits_000.npy", SMALL), BundleCorrupt, "do not fit"),
        (put("golden/logits_000.npy", DOUBLE), BundleCorrupt, "do not fit"),
        (put("report.json", b"{"), BundleCorrupt, "report.json is not JSON"),
        (put("report.json", b"[]"), BundleCorrupt, "report.json is not a JSON object"),
    ],
)  # fmt: skip
def test_members_that_hold_something_else(change, error, reason, built):
    path = rewrite_members(built("fp32"), change)
    with pytest.raises(error) as caught:
        verify_bundle(path)
    assert reason in str(caught.value)
    assert str(path) in str(caught.value)


def test_pickled_golden_frames_are_never_loaded(built, tmp_path):
    marker = tmp_path / "executed"

    class Payload:
        def __reduce__(self):
            return (type(marker).touch, (marker,))

    data = npy(np.array([Payload()], dtype=object))
    path = rewrite_members(built("fp32"), put("golden/frame_000.npy", data))
    with pytest.raises(BundleCorrupt, match="not an array"):
        verify_bundle(path)
    assert not marker.exists()


def test_no_golden_frames_at_all(built):
    def change(members):
        for name in [n for n in members if n.endswith(".npy")]:
            del members[name]

    with pytest.raises(BundleCorrupt, match="0 golden frames"):
        verify_bundle(rewrite_members(built("fp32"), change))


def test_report_is_not_needed(built):
    path = rewrite_members(built("fp32"), drop("report.json"))
    assert verify_bundle(path).built_within_budget is None


@pytest.fixture
def without_onnxruntime(monkeypatch, built):
    """A CPU bundle's other engine is installed, and the FP32 graph's is not."""
    built("int8")  # elsewhere
    real = sessions.importlib.import_module

    def no_module(name, package=None):
        if name == "onnxruntime":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, package)

    monkeypatch.setattr(sessions.importlib, "import_module", no_module)
    monkeypatch.setattr(detector, "installed_sessions", lambda: ["openvino"])


def test_without_onnxruntime_the_engine_is_verified_alone(built, without_onnxruntime):
    found = verify_bundle(built("int8"))
    assert found.passed
    assert found.engine.startswith("openvino")
    assert found.deployed.passed
    assert found.reference is None
    assert found.to_dict()["reference"] is None
    assert found.not_verified[0].startswith("the FP32 graph: onnxruntime is not installed")


def test_without_onnxruntime_labelled_data_is_refused(built, without_onnxruntime, make_data):
    with pytest.raises(MissingDependency, match="which ONNX Runtime computes") as raised:
        verify_bundle(built("int8"), make_data())
    assert "irstd-compile finish" not in str(raised.value)


def test_all_is_verified_where_all_is_installed(built):
    assert verify_bundle(built("fp32")).not_verified == ()
