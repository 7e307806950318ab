"""What a user may do wrong at run time: one line, the right exit code, nothing half-written."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from irstd.bundle import write_bundle
from irstd.errors import BuildError, InputError
from irstd.manifest import EngineChoice, Manifest
from irstd.runtime import open_bundle
from irstd.runtime.command import main
from irstd.runtime.frame_runner import FrameRunner
from irstd.runtime.postprocess import detect
from irstd.runtime.sessions.fake_session import FakeSession
from irstd.types import InputSpec, Precision

SIDE = 32


def write_fake(
    path: Path, *, bit_depth: int = 8, session: str = "fake", model: bytes = b""
) -> Path:
    spec = InputSpec(SIDE, SIDE, (0.02,), (-2.0,), (100.0,), bit_depth=bit_depth)
    engine = EngineChoice(session, session, "model.onnx", 1.0, 0.0, True, True, "the only one")
    manifest = Manifest(
        network="fake", input=spec, threshold=0.5, precision=Precision.FP32, target="cpu",
        model="model.onnx", reference="model.onnx", engines=(engine,), global_pooling=False,
        calibration=None, int8_form=None, licences={}, resolved={}, sdk_version="0",
    )  # fmt: skip
    graph = {"input_shape": [1, 1, SIDE, SIDE], "gain": 4.0, "bias": -4.0}
    write_bundle(path, manifest, {"model.onnx": model or json.dumps(graph).encode()})
    return path


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_fake(tmp_path / "fake.irstd")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    folder = tmp_path / "clip"
    folder.mkdir()
    for index in range(5):
        image = np.full((SIDE, SIDE), 40, np.uint8)
        image[8:10, 4 * index + 2] = 220
        cv2.imwrite(str(folder / f"f{index}.png"), image)
    return folder


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command, check that it fails in one line with that code, and return the line."""

    def call(code: int, *arguments: object) -> str:
        assert main([str(argument) for argument in (*arguments, "--json")]) == code
        printed = capsys.readouterr()
        assert printed.err.startswith("irstd-run: ")
        assert printed.err.count("\n") == 1
        assert json.loads(printed.out)["error"]["exit_code"] == code
        return printed.err

    return call


FRAMES = {
    "none": None,
    "list": [[0.0] * 4] * 4,
    "string": "frame.png",
    "number": 7,
    "scalar array": np.array(3, np.uint8),
    "row": np.zeros(9, np.uint8),
    "colour": np.zeros((9, 9, 3), np.uint8),
    "batch": np.zeros((1, 9, 9), np.uint8),
    "no rows": np.zeros((0, 9), np.uint8),
    "no columns": np.zeros((9, 0), np.uint8),
    "float64": np.zeros((9, 9)),
    "float16": np.zeros((9, 9), np.float16),
    "signed": np.zeros((9, 9), np.int16),
    "bool": np.zeros((9, 9), bool),
    "complex": np.zeros((9, 9), np.complex64),
    "object": np.zeros((9, 9), object),
    "text": np.full((9, 9), "a"),
    "other byte order": np.zeros((9, 9), ">u2"),
    "too deep": np.zeros((9, 9), np.uint16),
    "nan": np.full((9, 9), np.nan, np.float32),
    "infinite": np.full((9, 9), np.inf, np.float32),
    "negative": np.full((9, 9), -1, np.float32),
    "too bright": np.full((9, 9), 256, np.float32),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_wrong_frame_is_an_input_error_of_one_line(bundle, name):
    with open_bundle(bundle) as detector:
        for use in (detector, detector.logits, detector.probabilities):
            with pytest.raises(InputError, match="wanted") as caught:
                use(FRAMES[name])
            assert "\n" not in str(caught.value)
            assert len(str(caught.value)) < 300
        with pytest.raises(ValueError, match="wanted"):
            list(detector.stream([FRAMES[name]]))
        assert len(detector(np.full((SIDE, SIDE), 200, np.uint8))) == 1


def test_extreme_but_honest_frames_are_fine(bundle):
    with open_bundle(bundle) as detector:
        for level in (0, 255):
            for shape in [(1, 1), (1, 700), (700, 1), (333, 77)]:
                found = detector(np.full(shape, level, np.uint8))
                assert len(found) == (1 if level else 0), shape


def test_an_engine_that_answers_nan_is_not_taken_for_an_empty_sky(bundle):
    runner = FrameRunner(FakeSession((1, 1, 8, 8), lambda x: x * np.float32(np.nan)),
                         InputSpec(8, 8, (1.0,), (0.0,), (0.0,)))  # fmt: skip
    with pytest.raises(InputError, match="NaN"):
        detect(runner.logits(np.ones((8, 8), np.uint8)), 0.5)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_graph_that_is_no_graph_is_a_build_error(tmp_path, clip, fails, engine):
    pytest.importorskip(engine)
    path = write_fake(tmp_path / "bad.irstd", session=engine, model=b"not a graph")
    with pytest.raises(BuildError, match="refuses"):
        open_bundle(path)
    fails(1, path, clip)


def test_bundles_that_are_missing_or_broken(tmp_path, bundle, clip, fails):
    assert "no such file" in fails(1, tmp_path / "none.irstd", clip)
    assert "directory" in fails(1, clip, clip)
    data = bytearray(bundle.read_bytes())
    data[-400] ^= 1
    bundle.write_bytes(data)
    fails(1, bundle, clip)
    bundle.write_bytes(data[: len(data) // 2])
    fails(1, bundle, clip)


def test_sources_that_are_missing_empty_or_something_else(tmp_path, bundle, fails):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no such file" in fails(1, bundle, tmp_path / "nowhere")
    assert "no images" in fails(1, bundle, empty)
    (tmp_path / "notes.txt").write_text("hello")
    assert "wanted a folder or one of" in fails(1, bundle, tmp_path / "notes.txt")


BAD_IMAGES = {
    "empty": (b"", "not a readable image"),
    "noise": (bytes(range(256)) * 9, "not a readable image"),
    "coloured": (np.dstack([np.full((8, 8), level, np.uint8) for level in (0, 90, 200)]),
                 "coloured"),
    "16 bit": (np.full((8, 8), 9000, np.uint16), "uint16; wanted uint8 for bit depth 8"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_one_bad_image_among_good_ones_is_named_and_the_frames_before_it_are_kept(
    tmp_path, bundle, clip, fails, name
):
    content, words = BAD_IMAGES[name]
    if isinstance(content, np.ndarray):
        content = cv2.imencode(".png", content)[1].tobytes()
    (clip / "f3.png").write_bytes(content)
    out, pictures = tmp_path / "results" / "o.jsonl", tmp_path / "drawn"
    line = fails(1, bundle, clip, "--out", out, "--draw", pictures)
    assert words in line
    assert "f3.png" in line
    assert "after 3 frames" in line
    kept = [json.loads(text)["frame_index"] for text in out.read_text().splitlines()]
    assert kept == [0, 1, 2]
    assert os.listdir(out.parent) == ["o.jsonl"]
    assert sorted(os.listdir(pictures)) == ["f0.png", "f1.png", "f2.png"]


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_a_bad_first_image_leaves_nothing(tmp_path, bundle, clip, fails, name):
    content, words = BAD_IMAGES[name]
    if isinstance(content, np.ndarray):
        content = cv2.imencode(".png", content)[1].tobytes()
    (clip / "f0.png").write_bytes(content)
    out = tmp_path / "results" / "o.jsonl"
    line = fails(1, bundle, clip, "--out", out)
    assert words in line
    assert "f0.png" in line
    assert os.listdir(out.parent) == []


def test_8_bit_frames_for_a_14_bit_bundle(tmp_path, clip, fails):
    line = fails(1, write_fake(tmp_path / "deep.irstd", bit_depth=14), clip)
    assert "uint8; wanted uint16 for bit depth 14" in line


def test_levels_beyond_14_bits_name_their_file(tmp_path, fails):
    folder = tmp_path / "deep"
    folder.mkdir()
    for index, level in enumerate([16383, 16384]):
        cv2.imwrite(str(folder / f"{index}.png"), np.full((8, 8), level, np.uint16))
    line = fails(1, write_fake(tmp_path / "deep.irstd", bit_depth=14), folder)
    assert "1.png" in line
    assert "wanted 0 to 16383" in line


def test_a_video_that_ends_in_the_middle_of_a_frame(tmp_path, bundle, fails):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), 30, (64, 48), False)
    if not writer.isOpened():
        pytest.skip("this OpenCV cannot write FFV1")
    rng = np.random.default_rng(0)
    for _ in range(12):
        writer.write(rng.integers(0, 60, (48, 64), np.uint8))
    writer.release()
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.7)])
    out = tmp_path / "results" / "o.jsonl"
    line = fails(1, bundle, path, "--out", out)
    assert "cut short" in line
    assert "of 12 frames decode" in line
    kept = out.read_text().splitlines()
    assert 0 < len(kept) < 12
    assert f"the first {len(kept)} were used" in line
    path.write_bytes(data[:4000])
    assert "not a readable video" in fails(1, bundle, path)


def test_a_full_disk_leaves_nothing(tmp_path, bundle, clip, fails, monkeypatch):
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "o.jsonl")

    monkeypatch.setattr(os, "fsync", full)
    out = tmp_path / "results" / "o.jsonl"
    assert "disk is full" in fails(1, bundle, clip, "--out", out)
    assert os.listdir(out.parent) == []


def test_places_that_cannot_be_written(tmp_path, bundle, clip, fails):
    (tmp_path / "file").write_text("a file")
    fails(1, bundle, clip, "--out", tmp_path / "file" / "o.jsonl")
    fails(1, bundle, clip, "--draw", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "a file"


def test_an_unwritable_output_is_found_before_any_frame_is_inferred(
    tmp_path, bundle, clip, fails, monkeypatch
):
    def never(*arguments: object) -> None:
        raise AssertionError("a frame was inferred")

    monkeypatch.setattr("irstd.runtime.command.run_stream", never)
    (tmp_path / "file").write_text("a file")
    fails(1, bundle, clip, "--out", tmp_path / "file" / "o.jsonl")
