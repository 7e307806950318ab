"""A build that is repeated or interrupted continues where it was: stages are counted."""

import pytest

from irstd.bundle import read_bundle
from irstd.compile import lower, measure, pipeline, prepare
from irstd.compile.builders import cpu


@pytest.fixture
def computed(monkeypatch):
    """Count what the stages compute, as opposed to take from the cache."""
    counts = {"rewrite": 0, "calibrate": 0, "score": 0}
    # Two engines of nearly one speed would take turns in being chosen, and scored.
    monkeypatch.setattr(cpu, "time_sessions", lambda sessions, inputs: dict.fromkeys(sessions, 1.0))

    def counting(name, real):
        def run(*arguments, **keywords):
            counts[name] += 1
            return real(*arguments, **keywords)

        return run

    monkeypatch.setattr(prepare, "rewrite", counting("rewrite", prepare.rewrite))
    monkeypatch.setattr(lower, "calibrate", counting("calibrate", lower.calibrate))
    monkeypatch.setattr(measure, "score_frames", counting("score", measure.score_frames))
    return counts


def test_repeated_build_computes_nothing_again(build, computed):
    build(precision="int8")
    assert computed == {"rewrite": 1, "calibrate": 1, "score": 2}
    build("again.irstd", precision="int8")
    assert computed == {"rewrite": 1, "calibrate": 1, "score": 2}


def test_another_calibrator_computes_only_what_depends_on_it(build, computed):
    build(precision="int8")
    build(precision="int8", calibration="mse")
    assert computed == {"rewrite": 1, "calibrate": 2, "score": 3}  # FP32 is scored once


def test_without_cache_everything_is_computed(build, computed, tmp_path):
    for _ in range(2):
        build(precision="int8", use_cache=False, cache=None)
    assert computed == {"rewrite": 2, "calibrate": 2, "score": 4}
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("breaks", "left"),
    [
        ("calibrate", {"rewrite": 0, "calibrate": 1, "score": 2}),
        ("score", {"rewrite": 0, "calibrate": 0, "score": 2}),
        ("write", {"rewrite": 0, "calibrate": 0, "score": 0}),
    ],
)
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_interrupted_build_leaves_nothing_and_continues(
    breaks, left, error, build, computed, monkeypatch, tmp_path
):
    """Stopped in a stage: no bundle, no temporary file, and the stages before it are kept."""
    where = {
        "calibrate": (lower, "calibrate"),
        "score": (measure, "score_frames"),
        "write": (pipeline, "write_bundle"),
    }[breaks]

    def stop(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(*where, stop)
        with pytest.raises(error):
            build(precision="int8")
    assert not list(tmp_path.glob("*.irstd"))
    assert not list(tmp_path.rglob("*.part"))
    for name in computed:
        computed[name] = 0
    assert build(precision="int8").path.is_file()
    assert computed == left


def test_damaged_cache_entries_are_made_again(build, computed, tmp_path):
    first = build(precision="int8")
    for entry in (tmp_path / "cache" / "stages").iterdir():
        entry.write_bytes(entry.read_bytes()[:-3])
    second = build("second.irstd", precision="int8")
    assert computed == {"rewrite": 2, "calibrate": 2, "score": 4}
    assert (
        read_bundle(first.path).members["model.int8.onnx"]
        == (read_bundle(second.path).members["model.int8.onnx"])
    )


@pytest.mark.parametrize("kind", ["folder", "under a file"])
def test_impossible_out_is_refused_before_anything_is_computed(kind, build, computed, tmp_path):
    if kind == "folder":
        (tmp_path / "out.irstd").mkdir()
    else:
        (tmp_path / "out").write_text("")
    with pytest.raises(OSError, match="directory"):
        build("out.irstd" if kind == "folder" else "out/a.irstd")
    assert computed["rewrite"] == 0
