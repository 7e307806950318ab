import dataclasses
import logging
import re
import sys
import threading

import numpy as np
import pytest

from irstd.errors import (
    BuildError,
    BundleError,
    BundleMismatch,
    InputError,
    MissingDependency,
    UsageError,
)
from irstd.files import sha256_of_file
from irstd.runtime import open_bundle
from irstd.runtime.postprocess import detect, sigmoid
from irstd.types import Fit


def test_a_bright_target_is_found_where_it_is(make_bundle, frame):
    path = make_bundle()
    with open_bundle(path) as detector:
        found = detector(frame)
        assert detector.engine == "fake"
        assert detector.manifest.network == "fake"
        assert detector.bundle_sha256 == sha256_of_file(path)
    np.testing.assert_allclose(found.centroid_yx, [[10.5, 20.5]])
    assert found.area_px.tolist() == [4]
    # gain 4, bias -4 on (220 - 100) / 50
    np.testing.assert_allclose(found.peak_logit, [4 * 2.4 - 4], rtol=1e-5)


def test_a_path_may_be_a_string(make_bundle, frame):
    with open_bundle(str(make_bundle())) as detector:
        assert len(detector(frame)) == 1


@pytest.mark.parametrize("shape", [(32, 32), (9, 50), (70, 41)])
def test_calls_logits_and_probabilities_agree(make_bundle, spec, shape):
    frame = np.random.default_rng(3).integers(0, 256, shape).astype(np.uint8)
    for fit in Fit:
        with open_bundle(make_bundle(input_spec=spec(fit=fit))) as detector:
            logits = detector.logits(frame)
            probabilities = detector.probabilities(frame)
            found = detector(frame)
        assert logits.shape == probabilities.shape == shape
        assert probabilities.dtype == np.float32
        np.testing.assert_array_equal(probabilities, sigmoid(logits))
        wanted = detect(logits, 0.5)
        np.testing.assert_array_equal(found.centroid_yx, wanted.centroid_yx)
        np.testing.assert_array_equal(found.score, wanted.score)


def test_results_outlive_later_frames(make_bundle, frame):
    with open_bundle(make_bundle()) as detector:
        logits, probabilities, found = (
            detector.logits(frame),
            detector.probabilities(frame),
            detector(frame),
        )
        copies = logits.copy(), probabilities.copy(), found.centroid_yx.copy()
        detector(np.zeros_like(frame))
        detector.probabilities(np.zeros_like(frame))
    np.testing.assert_array_equal(logits, copies[0])
    np.testing.assert_array_equal(probabilities, copies[1])
    np.testing.assert_array_equal(found.centroid_yx, copies[2])


def test_the_bundles_threshold_is_used(make_bundle, frame, monkeypatch):
    with open_bundle(make_bundle()) as detector:
        high = dataclasses.replace(detector.manifest, threshold=0.999)
        monkeypatch.setattr(detector, "_manifest", high)
        assert len(detector(frame)) == 0  # sigmoid(5.6) is 0.996


def test_timing_of_the_last_call(make_bundle, frame):
    with open_bundle(make_bundle()) as detector:
        assert detector.last_timing.infer_ms == 0
        detector(frame)
        timing = detector.last_timing
    assert timing.pre_ms > 0
    assert timing.infer_ms > 0
    assert timing.post_ms > 0


def test_closing_is_idempotent_and_final(make_bundle, frame):
    detector = open_bundle(make_bundle())
    detector.close()
    detector.close()
    for use in (detector, detector.logits, detector.probabilities):
        with pytest.raises(UsageError, match="closed"):
            use(frame)
    with pytest.raises(UsageError, match="closed"):
        detector.stream([frame])
    with pytest.raises(UsageError, match="closed"), detector:
        pass


def test_another_thread_is_refused(make_bundle, frame):
    caught = []

    def use():
        try:
            detector(frame)
        except UsageError as error:
            caught.append(str(error))

    with open_bundle(make_bundle()) as detector:
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        assert len(detector(frame)) == 1
    assert "open_bundle in each thread" in caught[0]


def test_detectors_of_two_threads_do_not_disturb_each_other(make_bundle, frame):
    path = make_bundle()
    results = {}

    def use(name, image):
        with open_bundle(path) as detector:
            results[name] = [len(detector(image)) for _ in range(30)]

    threads = [
        threading.Thread(target=use, args=("bright", frame)),
        threading.Thread(target=use, args=("dark", np.zeros_like(frame))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {"bright": [1] * 30, "dark": [0] * 30}


def test_a_refused_frame_does_not_spoil_the_detector(make_bundle, frame):
    with open_bundle(make_bundle()) as detector:
        with pytest.raises(InputError):
            detector(frame.astype(np.float64))
        assert len(detector(frame)) == 1


def test_the_stream_stamps_its_detections(make_bundle, frame):
    with open_bundle(make_bundle()) as detector:
        results = list(detector.stream([frame, frame, frame]))
    assert [result.frame_index for result in results] == [0, 1, 2]
    for result in results:
        assert result.status == "delivered"
        assert result.detections.frame_index == result.frame_index
        assert result.detections.captured_at_s == result.captured_at_s
        assert result.detections.ready_at_s == result.ready_at_s >= result.captured_at_s
        assert len(result.detections) == 1


# Which engine runs ------------------------------------------------------------------------------


def pretend_installed(monkeypatch, *names):
    monkeypatch.setattr("irstd.runtime.detector.installed_sessions", lambda: list(names))


def test_auto_takes_the_builds_choice(make_bundle, make_choice, onnx_affine, frame):
    pytest.importorskip("openvino")
    choices = (
        make_choice("onnxruntime", chosen=False, median_ms=0.1),
        make_choice("openvino", chosen=True, median_ms=9.0),
    )
    with open_bundle(make_bundle(choices, model=onnx_affine)) as detector:
        assert detector.engine.startswith("openvino ")
        assert "(" not in detector.engine
        assert len(detector(frame)) == 1


def test_auto_falls_back_visibly(make_bundle, make_choice, onnx_affine, frame, monkeypatch, caplog):
    pretend_installed(monkeypatch, "onnxruntime")
    choices = (
        make_choice("openvino"),
        make_choice("onnxruntime", chosen=False, reason="slower"),
    )
    path = make_bundle(choices, model=onnx_affine)
    with caplog.at_level(logging.WARNING), open_bundle(path) as detector:
        reason = "the build chose openvino, which is not installed"
        assert detector.engine.startswith("onnxruntime ")
        assert reason in detector.engine
        assert reason in caplog.text
        assert len(detector(frame)) == 1


@pytest.mark.parametrize(
    ("compiler", "finding"),
    [
        ("no-compiler-of-this-name", r"no C++ compiler (no-compiler-of-this-name)"),
        ("false", "the kernels of this graph cannot be compiled here: false refuses the kernels"),
    ],
)
def test_auto_falls_back_where_kernels_cannot_be_compiled(
    compiler, finding, make_bundle, make_choice, make_fused, monkeypatch, tmp_path, caplog
):
    """A bundle with fused nodes opens without g++: the other engine runs their plain meaning."""
    pytest.importorskip("openvino")
    onnx_graph = pytest.importorskip("irstd.compile.onnx_graph")
    monkeypatch.setenv("IRSTD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", compiler)
    choices = (make_choice("openvino"), make_choice("onnxruntime", chosen=False, reason="slower"))
    model = onnx_graph.checked(make_fused(), "test").SerializeToString()
    path = make_bundle(choices, model=model)
    with caplog.at_level(logging.WARNING), open_bundle(path) as detector:
        reason = f"openvino cannot run here: {finding}"
        assert detector.engine.startswith("onnxruntime ")
        assert reason in detector.engine
        assert reason in caplog.text
        assert np.isfinite(detector.logits(np.zeros((32, 32), np.uint8))).all()
    with pytest.raises(MissingDependency, match=re.escape(finding)):
        open_bundle(path, engine="openvino")
    with pytest.raises(MissingDependency, match=re.escape(finding)):
        open_bundle(make_bundle((make_choice("openvino"),), model=model))


def test_auto_falls_back_to_the_faster_of_those_that_passed(make_bundle, make_choice, monkeypatch):
    pretend_installed(monkeypatch, "onnxruntime", "reference")
    choices = (
        make_choice("openvino"),
        make_choice("onnxruntime", chosen=False, passed=False, median_ms=0.1),
        make_choice("fake", chosen=False, median_ms=2.0),
        make_choice("reference", chosen=False, median_ms=3.0),
    )
    with open_bundle(make_bundle(choices)) as detector:
        assert detector.engine.startswith("fake")


def test_no_engine_installed_names_the_command(make_bundle, make_choice, monkeypatch):
    pretend_installed(monkeypatch)
    choices = (make_choice("openvino"), make_choice("onnxruntime", chosen=False))
    with pytest.raises(MissingDependency, match=r"pip install 'irstd-sdk\[cpu\]'") as caught:
        open_bundle(make_bundle(choices))
    assert caught.value.exit_code == 3
    assert "openvino or onnxruntime" in str(caught.value)


@pytest.mark.parametrize("engine", ["tensorrt", "tensorrt_rtx"])
def test_a_bundle_for_a_cpu_is_not_sent_to_finish(make_bundle, engine):
    """Which would say that there is nothing to finish."""
    with pytest.raises(
        BundleMismatch, match="built for cpu, it holds no engine of a GPU"
    ) as caught:
        open_bundle(make_bundle(), engine=engine)
    assert "irstd-compile finish" not in str(caught.value)


def test_a_bundle_for_a_device_is_refused_with_its_name(make_bundle):
    path = make_bundle((), target="jetson-orin-nano")
    with pytest.raises(BundleMismatch, match="built for jetson-orin-nano, it holds no engine"):
        open_bundle(path)


def test_a_named_engine_evaluates_a_bundle_for_a_device(make_bundle, onnx_affine, frame, caplog):
    path = make_bundle((), target="jetson-orin-nano", model=onnx_affine)
    with open_bundle(path, engine="onnxruntime", threads=1) as detector:
        assert "asked for" in detector.engine
        assert "jetson-orin-nano" in detector.engine
        assert len(detector(frame)) == 1


def test_a_named_engine_is_that_engine_or_none(make_bundle, make_choice, monkeypatch):
    path = make_bundle((make_choice("openvino"), make_choice("fake", chosen=False)))
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingDependency, match="openvino is not installed"):
        open_bundle(path, engine="openvino")
    with open_bundle(path, engine="fake") as detector:
        assert detector.engine == "fake"


def test_a_named_engine_that_failed_parity_says_so(make_bundle, make_choice):
    choice = make_choice("fake", passed=False, chosen=False, reason="off by 3.2")
    path = make_bundle((choice,))
    with open_bundle(path, engine="fake") as detector:
        assert "parity failed: off by 3.2" in detector.engine
    with pytest.raises(BundleMismatch, match="no engine of it passed parity"):
        open_bundle(path)


def test_unknown_engine_names_the_known_ones(make_bundle):
    with pytest.raises(UsageError, match="'tpu'; one of auto, onnxruntime, openvino"):
        open_bundle(make_bundle(), engine="tpu")


def test_threads_reach_the_engine(make_bundle, make_choice, onnx_affine, caplog):
    path = make_bundle((make_choice("onnxruntime"),), model=onnx_affine)
    with caplog.at_level(logging.INFO, logger="irstd"), open_bundle(path, threads=1):
        assert "1 threads" in caplog.text
    with pytest.raises(UsageError, match="threads 0"):
        open_bundle(path, threads=0)


def test_a_missing_bundle_is_one_line(tmp_path):
    with pytest.raises(BundleError, match="no such file"):
        open_bundle(tmp_path / "none.irstd")


def test_a_graph_that_does_not_fit_its_manifest_is_refused(make_bundle, spec, onnx_affine):
    path = make_bundle(input_spec=spec(height=48), model=onnx_affine)
    with pytest.raises(BuildError, match=r"wanted \(1, 1, 48, 32\)"):
        open_bundle(path, engine="onnxruntime")
