"""The whole build, in Python: what is in the bundle, what is computed twice, what is written."""

import json
import shutil

import cv2
import numpy as np
import onnx
import pytest

import irstd
from irstd.bundle import read_bundle
from irstd.compile import NETWORKS, TARGETS, build_bundle, command, measure
from irstd.compile.builders import cpu
from irstd.compile.shipped import read_shipped
from irstd.errors import (
    BudgetExceeded,
    BundleMismatch,
    ExportError,
    InputError,
    ParityFailed,
    UsageError,
)
from irstd.manifest import FORMAT_VERSION
from irstd.metrics import evaluate


def graph_of(bundle, name):
    return onnx.load_model_from_string(bundle.read(name))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_bundle_holds_what_the_format_page_says(precision, build):
    result = build(precision=precision)
    bundle = read_bundle(result.path)
    assert bundle.sha256 == result.sha256
    golden = [f"golden/{kind}_00{n}.npy" for kind in ("deployed", "frame", "logits") for n in "012"]
    wanted = {"model.onnx", f"model.{precision}.onnx", "report.json", "golden/tolerance.json"}
    wanted |= {"scales.json"} if precision == "int8" else set()
    assert set(bundle.members) == wanted | set(golden)
    assert FORMAT_VERSION == 1

    manifest = bundle.manifest
    assert manifest == result.manifest
    assert manifest.network == "tiny"
    assert manifest.precision.value == precision
    assert manifest.input.shape == (1, 1, 32, 32)
    assert manifest.global_pooling is True
    assert (manifest.calibration, manifest.int8_form) == (
        ("minmax", "cpu") if precision == "int8" else (None, None)
    )
    assert sum(engine.chosen for engine in manifest.engines) == 1
    onnx.checker.check_model(graph_of(bundle, manifest.model), full_check=True)
    onnx.checker.check_model(graph_of(bundle, "model.onnx"), full_check=True)


def test_report_tells_both_lists_and_the_verdict(build):
    result = build(precision="int8")
    report = json.loads(read_bundle(result.path).read("report.json"))
    assert report == json.loads(json.dumps(result.report))
    assert len(report["calibrated_on"]) == len(report["verified_on"]) == 3
    assert not set(report["calibrated_on"]) & set(report["verified_on"])
    assert report["verdict"]["passed"] is True
    assert report["verdict"]["accuracy"]["fp32"]["frames"] == 3
    assert report["float_nodes"].keys() == {"gate", "head"}
    assert report["settings"]["data"] == "data"
    assert "cpu_model" in report["environment"]


def test_float_builds_calibrate_on_nothing(build):
    assert build(precision="fp32").report["calibrated_on"] == []


def test_accuracy_is_that_of_the_bundle_as_deployed(build, make_data):
    """Frames larger than the engine, so that tiling is in it; against the public runtime."""
    data = make_data("large", frames=4, size_hw=(45, 70))
    result = build(precision="int8", data=data)
    stems = result.report["verified_on"]
    maps, masks = [], []
    with irstd.open_bundle(result.path) as detector:
        for stem in stems:
            image = cv2.imread(str(data / "images" / f"{stem}.png"), cv2.IMREAD_UNCHANGED)
            maps.append(detector.probabilities(image))
            mask = cv2.imread(str(data / "masks" / f"{stem}.png"), cv2.IMREAD_UNCHANGED)
            masks.append(mask)
    scores = evaluate(maps, masks, 0.5)
    found = result.verdict.accuracy.deployed
    assert found.frames == scores.frames == 2
    for name in ("iou", "niou", "pd", "fa", "hse_p", "hse_t", "hse"):
        assert getattr(found, name) == pytest.approx(getattr(scores, name), abs=1e-6)


def test_the_bundle_detects(build, make_data):
    """The way through to detections: the dots of the tiny network are found where they are."""
    with irstd.open_bundle(build(precision="int8").path) as detector:
        frame = np.full((32, 32), 60, np.uint8)
        frame[12:15, 20:23] = 230
        (centre,) = detector(frame).centroid_yx
    assert np.abs(centre - [13, 21]).max() < 2


def test_same_inputs_give_the_same_graphs_scales_and_frames(build, tmp_path):
    first, second = (
        read_bundle(build(f"{n}.irstd", precision="int8", cache=None, use_cache=False).path)
        for n in range(2)
    )
    assert set(first.members) == set(second.members)
    for name in first.members:
        if name != "report.json":  # it holds timings
            assert first.read(name) == second.read(name), name


def test_seed_changes_what_calibrates(build):
    lists = [build(precision="int8", seed=seed).report["calibrated_on"] for seed in (0, 5)]
    assert lists[0] != lists[1]


def worse(monkeypatch):
    """Let the deployed graph score five points of HSE less than the source."""
    import dataclasses

    real = measure.judge

    def judge(before, after, budget):
        return real(before, dataclasses.replace(after, hse=before.hse - 5), budget)

    monkeypatch.setattr(measure, "judge", judge)


def test_violated_budget_writes_nothing(build, monkeypatch, tmp_path):
    worse(monkeypatch)
    with pytest.raises(BudgetExceeded, match=r"hse changed by -5\.000, allowed -1\.000.*--keep"):
        build(precision="int8", budget="hse=-1")
    assert not list(tmp_path.glob("*.irstd"))


def test_violated_budget_leaves_an_older_bundle_alone(build, monkeypatch):
    old = build(precision="int8")
    worse(monkeypatch)
    with pytest.raises(BudgetExceeded):
        build(precision="int8", budget={"hse": -1})
    assert read_bundle(old.path).sha256 == old.sha256


def test_kept_bundle_says_that_it_failed(build, monkeypatch):
    worse(monkeypatch)
    result = build(precision="int8", budget="hse=-1", keep=True)
    assert not result.verdict.passed
    report = json.loads(read_bundle(result.path).read("report.json"))
    assert report["verdict"]["passed"] is False
    assert report["verdict"]["violations"] == ["hse changed by -5.000, allowed -1.000"]


def test_without_budget_the_verdict_is_stored_and_never_fails(build, monkeypatch):
    worse(monkeypatch)
    verdict = build(precision="int8").verdict
    assert verdict.passed
    assert verdict.accuracy.change["hse"] == pytest.approx(-5)


@pytest.mark.parametrize("how", ["no data", "no masks"])
def test_without_labels_nothing_is_measured(how, build, make_data):
    data = None if how == "no data" else make_data("bare", masks=False)
    verdict = build(data=data).verdict
    assert verdict.accuracy is None
    assert verdict.frames == (0 if how == "no data" else 3)


@pytest.mark.parametrize("target", [name for name, target in TARGETS.items() if target.portable])
def test_portable_targets_get_the_signed_form_and_no_engine(target, build):
    manifest = build(precision="int8", target=target).manifest
    assert (manifest.target, manifest.int8_form, manifest.engines) == (target, "nvidia", ())


def test_portable_bundle_is_measured_but_does_not_run_here(build):
    result = build(precision="int8", target="jetson-orin-nano")
    assert result.verdict.accuracy is not None
    graph = graph_of(read_bundle(result.path), "model.int8.onnx")
    kinds = {tensor.data_type for tensor in graph.graph.initializer}
    assert onnx.TensorProto.UINT8 not in kinds
    assert "Resize" in [node.op_type for node in graph.graph.node]  # no CPU form
    with pytest.raises(BundleMismatch, match="jetson-orin-nano"):
        irstd.open_bundle(result.path)
    with irstd.open_bundle(result.path, engine="reference") as detector:
        assert detector.logits(np.zeros((32, 32), np.uint8)).shape == (32, 32)


def test_signed_form_on_a_cpu_always_has_an_engine(build):
    manifest = build(precision="int8", int8_form="nvidia").manifest
    assert manifest.int8_form == "nvidia"
    assert "reference" in {engine.session for engine in manifest.engines}


@pytest.mark.parametrize("depth", [14, 16])
def test_deep_frames(depth, build, make_data):
    factor = 1 << (depth - 8)
    data = make_data("deep", bit_depth=depth)
    result = build(
        precision="int8", bit_depth=depth, data=data, normalize=f"{80 * factor},{40 * factor}"
    )
    assert result.manifest.input.bit_depth == depth
    assert f"{depth} bit" in result.report["float_nodes"]["first"]
    assert result.verdict.accuracy.deployed.pd == result.verdict.accuracy.fp32.pd > 50


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_three_channels_resize_and_per_frame_maximum(precision, build, tiny_onnx, make_data):
    result = build(
        source=tiny_onnx("rgb.onnx", channels=3),
        precision=precision,
        normalize="max",
        fit="resize",
        data=make_data("odd", size_hw=(40, 50)),
    )
    assert result.manifest.input.channels == 3
    assert result.manifest.input.per_frame_max
    with irstd.open_bundle(result.path) as detector:
        assert detector.logits(np.zeros((40, 50), np.uint8)).shape == (40, 50)


def test_symbolic_source_at_two_sizes(build, tiny_onnx):
    source = tiny_onnx(size_hw=("H", "W"))
    with pytest.raises(ExportError, match="--imgsz"):
        build(source=source)
    for size in ("48x64", "32x32"):
        result = build(source=source, imgsz=size)
        assert f"{result.manifest.input.height}x{result.manifest.input.width}" == size


def test_sigmoid_makes_no_difference_to_detections(build, tiny_onnx):
    frame = np.full((32, 32), 60, np.uint8)
    frame[5:8, 5:8] = 230
    logits = []
    for name, ends_in in (("a.onnx", "logits"), ("b.onnx", "sigmoid")):
        result = build(f"{ends_in}.irstd", source=tiny_onnx(name, ends_in=ends_in))
        assert result.report["logits_from_sigmoid"] == (ends_in == "sigmoid")
        with irstd.open_bundle(result.path) as detector:
            logits.append(detector.logits(frame))
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-5)


def test_probabilities_without_sigmoid_must_be_named(build, tiny_onnx):
    source = tiny_onnx(ends_in="probabilities")
    with pytest.raises(UsageError, match="say what it computes, --output probabilities or"):
        build(source=source)
    for output in ("probabilities", "logits"):
        assert build(f"{output}.irstd", source=source, output=output).path.is_file()


def test_all_engines_wrong_is_a_parity_failure(build, monkeypatch, tmp_path):
    real = cpu.reference_outputs
    monkeypatch.setattr(cpu, "reference_outputs", lambda *a: [x + 50 for x in real(*a)])
    with pytest.raises(ParityFailed, match="no installed engine computes"):
        build()
    assert not list(tmp_path.glob("*.irstd"))


def test_missing_folders_of_the_bundle_are_made(build, tmp_path):
    assert build("deep/er/tiny.irstd").path == tmp_path / "deep" / "er" / "tiny.irstd"


def test_out_in_a_folder_that_cannot_be_written(build, monkeypatch):
    monkeypatch.setattr("irstd.files.os.access", lambda *_: False)
    with pytest.raises(PermissionError):
        build()


def test_bad_verification_frame_is_named(build, make_data):
    data = make_data("later", frames=4)
    cv2.imwrite(str(data / "masks" / "003.png"), np.full((9, 9), 255, np.uint8))
    with pytest.raises(InputError, match=r"003\.png: 9x9 px"):
        build(verify_data=data)


def test_python_values(build, tmp_path):
    result = build(normalize=(80.0, 40.0), imgsz=(32, 32), precision=irstd.Precision.FP32)
    assert result.manifest.input.height == 32
    with pytest.raises(UsageError, match="unknown flag 'image-size'"):
        build(image_size=32)


def test_yaml_source(build, tiny_onnx, make_data, tmp_path):
    tiny_onnx("net.onnx")
    (tmp_path / "build.yaml").write_text(
        "source: net.onnx\nprecision: int8\nnormalize: 80,40\ndata: data\ncalibration: mse\n"
    )
    result = build_bundle(tmp_path / "build.yaml", tmp_path / "y.irstd", use_cache=False)
    assert (result.manifest.network, result.manifest.calibration) == ("net", "mse")
    (tmp_path / "dry.yaml").write_text("source: net.onnx\nnormalize: 80,40\ndry-run: true\n")
    with pytest.raises(UsageError, match="dry-run is for the command"):
        build_bundle(tmp_path / "dry.yaml", tmp_path / "dry.irstd")


def test_missing_onnx_says_what_to_install(run_python):
    code = (
        "import sys; sys.modules['onnx'] = None\n"
        "from irstd.compile import build_bundle\n"
        "from irstd.errors import MissingDependency\n"
        "try: build_bundle('acm', 'a.irstd')\n"
        "except MissingDependency as error: print(error)\n"
    )
    assert "irstd-sdk[compile]" in run_python(code)


def test_public_names():
    assert {"acm", "alcnet"} <= set(NETWORKS)
    assert "cpu" in TARGETS


@pytest.mark.skipif(read_shipped("acm") is None, reason="compile/weights/acm.onnx does not exist")
def test_shipped_acm_to_int8_detections(tmp_path):
    """End to end with what the package brings, on simulated frames."""
    from irstd.simulate import SceneConfig, simulate, write_scene

    config = SceneConfig(height=128, width=128, frames=8, scene="mix", scr=8, seed=4)
    write_scene(tmp_path / "data", config)
    result = build_bundle(
        "acm", tmp_path / "acm.irstd", precision="int8", imgsz="128x128", data=tmp_path / "data",
        cache=tmp_path / "cache", budget={"hse": -100.0},
    )  # fmt: skip
    accuracy = result.verdict.accuracy
    assert result.manifest.licences["weights"]
    assert accuracy.fp32.pd > 40
    assert accuracy.deployed.pd >= accuracy.fp32.pd - 30  # of some 8 targets
    scene = next(iter(simulate(config)))
    with irstd.open_bundle(result.path, threads=1) as detector:
        assert detector(scene.frame).score.shape[0] >= 0
        assert detector.manifest.network == "acm"
    shutil.rmtree(tmp_path / "cache")


def test_fused_operators_are_in_the_bundle_and_told(
    make_fused, build, tmp_path, capsys, monkeypatch
):
    """Kernels in OpenVINO and the bodies in ONNX Runtime, one file; the plain graph beside it."""
    pytest.importorskip("openvino")
    source = tmp_path / "fused.onnx"
    onnx.save(make_fused(), source)
    result = build(source=source, output="logits")
    bundle = read_bundle(result.path)
    operators = {"haar": "HaarGate", "split": "SpectralSplit", "attention": "MSDeformAttn"}
    assert result.report["kernels"] == operators
    assert result.report["written_out"] == {}
    domains = {
        name: {node.domain for node in graph_of(bundle, name).graph.node}
        for name in ("model.onnx", "model.fp32.onnx")
    }
    assert domains == {"model.onnx": {""}, "model.fp32.onnx": {"", "irstd"}}
    assert {engine.session for engine in result.manifest.engines if engine.passed} == {
        "openvino",
        "onnxruntime",
    }
    assert command.main(["inspect", str(result.path)]) == 0
    told = "fused kernels: 1 HaarGate, 1 SpectralSplit, 1 MSDeformAttn"
    assert told in capsys.readouterr().out
    monkeypatch.setenv("CXX", "no-compiler-of-this-name")
    plain = build("plain.irstd", source=source, output="logits")
    assert plain.report["kernels"] == {}
    assert {engine.session for engine in plain.manifest.engines if engine.passed} == {
        "openvino",
        "onnxruntime",
    }
    assert command.main(["inspect", str(plain.path)]) == 0
    told = (
        "3 fused operators run as standard ones: their CPU kernels cannot be compiled here: no C++"
    )
    assert told in capsys.readouterr().out
