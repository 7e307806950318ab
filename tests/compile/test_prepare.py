"""From a source to the static graph and its preprocessing: together they compute what it says."""

import numpy as np
import onnx
import pytest

from irstd.compile.graph_facts import run_graph
from irstd.compile.prepare import prepare
from irstd.compile.settings import Normalization, SourceSettings
from irstd.compile.sources import Source, open_source
from irstd.errors import ExportError, UsageError
from irstd.runtime.frame_runner import FrameRunner
from irstd.runtime.sessions import open_session
from irstd.types import Fit

GREY = Normalization((80.0,), (40.0,))


def source_of(model, normalization=GREY, default=None):
    return Source("tiny", model, normalization, default, True, {})


def logits_of(prepared, frame):
    session = open_session("onnxruntime", prepared.model.SerializeToString())
    try:
        return FrameRunner(session, prepared.spec).logits(frame)
    finally:
        session.close()


@pytest.fixture
def frame():
    return np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_graph_and_preprocessing_compute_what_the_source_computes(channels, make_tiny, frame):
    model = make_tiny(channels=channels)
    normalized = (frame.astype(np.float32) - 80) / 40
    image = np.broadcast_to(normalized, (1, channels, 32, 32)).copy()
    wanted = run_graph(model, image)[0, 0]
    prepared = prepare(source_of(model), SourceSettings("tiny"))
    assert prepared.spec.channels == channels
    assert "BatchNormalization" not in [node.op_type for node in prepared.model.graph.node]
    np.testing.assert_allclose(logits_of(prepared, frame), wanted, atol=1e-4)


def test_padding_is_zero_after_normalisation(make_tiny, frame):
    """A frame of 20x30 in a 32x32 engine: borders as if zeros had followed the normalisation."""
    model = make_tiny()
    small = frame[:20, :30]
    image = np.zeros((1, 1, 32, 32), np.float32)
    image[0, 0, :20, :30] = (small.astype(np.float32) - 80) / 40
    wanted = run_graph(model, image)[0, 0, :20, :30]
    prepared = prepare(source_of(model), SourceSettings("tiny"))
    np.testing.assert_allclose(logits_of(prepared, small), wanted, atol=1e-4)


@pytest.mark.parametrize(("imgsz", "size"), [((48, 64), (48, 64)), (None, (64, 32))])
def test_symbolic_size_is_asked_for_or_the_default(imgsz, size, make_tiny):
    model = make_tiny(size_hw=("H", "W"))
    prepared = prepare(source_of(model, default=(64, 32)), SourceSettings("tiny", imgsz=imgsz))
    assert prepared.spec.shape == (1, 1, *size)


def test_symbolic_size_without_any_hint(make_tiny):
    with pytest.raises(UsageError, match="symbolic; give --imgsz HxW"):
        prepare(source_of(make_tiny(size_hw=("H", "W"))), SourceSettings("tiny"))


def test_fixed_size_is_kept_and_another_is_refused(make_tiny):
    source = source_of(make_tiny(), default=(256, 256))
    assert prepare(source, SourceSettings("tiny")).spec.shape == (1, 1, 32, 32)
    with pytest.raises(ExportError, match="fixed at"):
        prepare(source, SourceSettings("tiny", imgsz=(48, 48)))


def test_size_that_does_not_suit_the_stride_names_one_that_does(make_tiny):
    source = source_of(make_tiny(size_hw=("H", "W")))
    with pytest.raises(ExportError, match="multiples of 4 px, for example --imgsz 36x64"):
        prepare(source, SourceSettings("tiny", imgsz=(33, 64)))


def test_three_normalisations_for_one_channel(make_tiny):
    three = Normalization((1, 2, 3), (4, 5, 6))
    with pytest.raises(UsageError, match="3 channels, the network takes 1"):
        prepare(source_of(make_tiny(), three), SourceSettings("tiny"))


@pytest.mark.parametrize("output", ["auto", "probabilities"])
def test_final_sigmoid_is_removed(output, make_tiny, frame):
    plain = prepare(source_of(make_tiny()), SourceSettings("tiny"))
    stripped = prepare(
        source_of(make_tiny(ends_in="sigmoid")), SourceSettings("tiny", output=output)
    )
    assert stripped.had_sigmoid
    assert not plain.had_sigmoid
    np.testing.assert_allclose(logits_of(stripped, frame), logits_of(plain, frame), atol=1e-5)


def test_sigmoid_that_the_user_calls_logits_stays(make_tiny):
    prepared = prepare(
        source_of(make_tiny(ends_in="sigmoid")), SourceSettings("tiny", output="logits")
    )
    assert not prepared.had_sigmoid
    assert prepared.model.graph.node[-1].op_type == "Sigmoid"


def test_other_probabilities_become_logits_on_demand(make_tiny, frame):
    model = make_tiny(ends_in="probabilities")
    image = ((frame.astype(np.float32) - 80) / 40)[None, None]
    probability = run_graph(model, image)[0, 0].astype(np.float64).clip(2.0**-23, 1 - 2.0**-23)
    prepared = prepare(source_of(model), SourceSettings("tiny", output="probabilities"))
    assert prepared.had_sigmoid
    found = logits_of(prepared, frame)
    np.testing.assert_allclose(found, np.log(probability / (1 - probability)), atol=1e-2)
    for engine in ("reference", "openvino"):
        open_session(engine, prepared.model.SerializeToString()).close()


def test_every_node_has_a_name_of_its_own(make_tiny):
    model = make_tiny()
    for node in model.graph.node:
        node.name = "" if node.op_type == "Relu" else "same"
    prepared = prepare(source_of(model), SourceSettings("tiny"))
    names = [node.name for node in prepared.model.graph.node]
    assert "" not in names
    assert len(set(names)) == len(names)
    onnx.checker.check_model(prepared.model, full_check=True)


def test_settings_of_the_input_reach_the_spec(make_tiny):
    settings = SourceSettings("tiny", bit_depth=14, fit=Fit.RESIZE)
    normalize = Normalization((0.0,), (1.0,), per_frame_max=True)
    spec = prepare(source_of(make_tiny(), normalize), settings).spec
    assert (spec.bit_depth, spec.fit, spec.per_frame_max) == (14, Fit.RESIZE, True)


def test_second_time_comes_from_the_cache(make_tiny, tmp_path, monkeypatch):
    from irstd.compile import prepare as module

    source, settings = source_of(make_tiny()), SourceSettings("tiny")
    first = prepare(source, settings, tmp_path)
    monkeypatch.setattr(module, "rewrite", lambda *_: pytest.fail("computed again"))
    again = prepare(source, settings, tmp_path)
    assert again.model.SerializeToString() == first.model.SerializeToString()
    assert again.spec == first.spec


def test_onnx_file_to_prepared_without_the_command(tiny_onnx):
    """Stages run alone, from files on disk."""
    settings = SourceSettings(str(tiny_onnx()), normalize=GREY)
    prepared = prepare(open_source(settings), settings)
    assert prepared.spec.shape == (1, 1, 32, 32)
    assert prepared.spec.pad_level == (80.0,)
