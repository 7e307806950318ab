import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from irstd.files import atomic_open
from irstd.runtime import command
from irstd.runtime.command import main
from irstd.runtime.stream import StreamResult

COUNT = 6


@pytest.fixture
def clip(tmp_path, frame):
    """Six frames; the target of 2x2 px moves one pixel to the right each time."""
    folder = tmp_path / "clip"
    folder.mkdir()
    for index in range(COUNT):
        cv2.imwrite(str(folder / f"f{index}.png"), np.roll(frame, index, axis=1))
    return folder


@pytest.fixture
def run(capsys):
    """Run the command and return its exit code, standard output and standard error."""

    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def read_lines(path):
    text = path.read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_becomes_lines_pictures_and_a_summary(run, make_bundle, clip, tmp_path):
    out, pictures = tmp_path / "new" / "found.jsonl", tmp_path / "drawn"
    code, text, errors = run(make_bundle(), clip, "--out", out, "--draw", pictures, "--json")
    assert (code, errors) == (0, "")
    report = json.loads(text)
    assert report["frames"] == report["delivered"] == report["detections"] == COUNT
    assert (report["late"], report["dropped"], report["fps"]) == (0, 0, None)
    assert report["policy"] == "wait"
    assert report["engine"] == "fake"
    assert len(report["bundle_sha256"]) == 64
    lines = read_lines(out)
    assert [line["frame_index"] for line in lines] == list(range(COUNT))
    for index, line in enumerate(lines):
        assert line["file"] == f"f{index}.png"
        assert line["status"] == "delivered"
        assert line["ready_at_s"] >= line["captured_at_s"]
        (target,) = line["detections"]
        assert (target["y"], target["x"]) == (10.5, 20.5 + index)
        assert target["area_px"] == 4
        assert target["box_xyxy"] == [19.5 + index, 9.5, 21.5 + index, 11.5]
        assert 0.99 < target["score"] < 1
    assert names_in(out.parent) == ["found.jsonl"]
    assert names_in(pictures) == [f"f{index}.png" for index in range(COUNT)]
    assert cv2.imread(str(pictures / "f0.png")).shape == (128, 128, 3)


def test_a_single_image_is_a_source(run, make_bundle, clip, tmp_path):
    code, text, _ = run(make_bundle(), clip / "f2.png", "--json")
    assert code == 0
    assert json.loads(text)["frames"] == 1


def test_people_get_a_short_text_and_quiet_gets_none(run, make_bundle, clip, tmp_path):
    code, text, errors = run(make_bundle(), clip, "--out", tmp_path / "o.jsonl")
    assert (code, errors) == (0, "")
    assert "6 frames: 6 delivered, 0 late, 0 dropped; 6 detections" in text
    assert "o.jsonl" in text
    assert run(make_bundle(), clip, "-q") == (0, "", "")


def test_a_rate_is_kept_and_reported(run, make_bundle, clip, tmp_path):
    out = tmp_path / "o.jsonl"
    code, text, _ = run(make_bundle(), clip, "--fps", 100, "--policy", "wait", "--out", out,
                        "--deadline-ms", 60000, "--json")  # fmt: skip
    report = json.loads(text)
    assert code == 0
    assert (report["fps"], report["policy"], report["deadline_ms"]) == (100, "wait", 60000)
    assert report["delivered"] == COUNT
    captured = [line["captured_at_s"] for line in read_lines(out)]
    np.testing.assert_allclose(np.diff(captured), 0.01, atol=1e-9)


def test_dropped_frames_are_lines_without_detections(run, make_bundle, clip, tmp_path, monkeypatch):
    def one_is_dropped(detect, frames, *rest):
        for index, frame in enumerate(frames):
            found = detect(frame)
            if index == 1:
                yield StreamResult(index, None, "dropped", 7.5, None)
            else:
                yield StreamResult(index, found, "late", 7.5, 8.0)

    monkeypatch.setattr(command, "run_stream", one_is_dropped)
    out, pictures = tmp_path / "o.jsonl", tmp_path / "drawn"
    code, text, _ = run(make_bundle(), clip, "--out", out, "--draw", pictures, "--json")
    report = json.loads(text)
    assert code == 0
    assert (report["frames"], report["late"], report["dropped"]) == (COUNT, COUNT - 1, 1)
    assert read_lines(out)[1] == {
        "frame_index": 1,
        "file": "f1.png",
        "captured_at_s": 7.5,
        "ready_at_s": None,
        "status": "dropped",
        "detections": [],
    }
    assert "f1.png" not in names_in(pictures)


def test_seconds_stop_a_paced_run_after_that_many_frames(run, make_bundle, clip):
    code, text, _ = run(make_bundle(), clip, "--fps", 50, "--seconds", 0.06, "--json")
    assert code == 0
    assert json.loads(text)["frames"] == 3


def test_seconds_stop_an_unpaced_run(run, make_bundle, clip):
    code, text, _ = run(make_bundle(), clip, "--seconds", 1e-9, "--json")
    assert code == 0
    assert json.loads(text)["frames"] == 1


def test_a_video_is_a_source(run, make_bundle, frame, tmp_path):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30, (32, 32), False)
    if not writer.isOpened():
        pytest.skip("this OpenCV cannot write MJPG")
    for _ in range(COUNT):
        writer.write(frame)
    writer.release()
    out = tmp_path / "o.jsonl"
    code, text, _ = run(make_bundle(), path, "--out", out, "--draw", tmp_path / "drawn", "--json")
    assert code == 0
    assert json.loads(text)["detections"] == COUNT
    assert read_lines(out)[3]["detections"][0]["y"] == pytest.approx(10.5, abs=0.3)
    assert names_in(tmp_path / "drawn")[5] == "clip_000005.png"


def test_an_interruption_keeps_whole_lines_and_says_so(
    run, make_bundle, clip, tmp_path, monkeypatch
):
    def interrupted(detect, frames, *rest):
        for index, frame in enumerate(frames):
            if index == 3:
                raise KeyboardInterrupt
            yield StreamResult(index, detect(frame), "delivered", 1.0, 2.0)

    monkeypatch.setattr(command, "run_stream", interrupted)
    out = tmp_path / "results" / "o.jsonl"
    code, text, errors = run(make_bundle(), clip, "--out", out, "--json")
    assert code == 130
    report = json.loads(text)
    assert report["frames"] == 3
    assert report["error"]["exit_code"] == 130
    assert errors == "irstd-run: interrupted (after 3 frames)\n"
    assert [line["frame_index"] for line in read_lines(out)] == [0, 1, 2]
    assert names_in(out.parent) == ["o.jsonl"]


def test_a_real_interrupt_of_a_running_command(make_bundle, clip, tmp_path):
    out, pictures = tmp_path / "results" / "o.jsonl", tmp_path / "drawn"
    arguments = [make_bundle(), clip, "--fps", "1", "--out", out, "--draw", pictures, "--json"]
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from irstd.runtime.command import main; "
         "sys.exit(main())", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    patience = time.monotonic() + 60
    while not (pictures / "f1.png").exists() and time.monotonic() < patience:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    text, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert errors.startswith("irstd-run: interrupted (after ")
    assert len(read_lines(out)) == json.loads(text)["frames"] >= 2
    assert names_in(out.parent) == ["o.jsonl"]


def test_half_a_line_is_cut_off(tmp_path, monkeypatch):
    class TornFile:
        def __init__(self, file):
            self.file = file
            self.tell, self.truncate = file.tell, file.truncate

        def write(self, data):
            if data.startswith(b"torn"):
                self.file.write(data[:3])
                raise KeyboardInterrupt
            self.file.write(data)

    @contextlib.contextmanager
    def torn_open(path):
        with atomic_open(path) as file:
            yield TornFile(file)

    monkeypatch.setattr(command, "atomic_open", torn_open)
    out = tmp_path / "o.jsonl"
    with command._line_writer(out) as write:
        write("whole")
        with pytest.raises(KeyboardInterrupt):
            write("torn")
    assert out.read_text() == "whole\n"


def test_an_earlier_result_survives_a_run_that_does_nothing(run, make_bundle, clip, tmp_path):
    out = tmp_path / "o.jsonl"
    out.write_text("earlier\n")
    (clip / "f0.png").write_bytes(b"not an image")
    code, text, _ = run(make_bundle(), clip, "--out", out, "--json")
    assert code == 1
    assert json.loads(text)["error"]["type"] == "InputError"
    assert out.read_text() == "earlier\n"


def test_pictures_never_replace_the_frames(run, make_bundle, clip):
    before = {path.name: path.read_bytes() for path in clip.iterdir()}
    for draw in (clip, clip / "." / "", clip.parent / "clip" / ".." / "clip"):
        code, _, errors = run(make_bundle(), clip, "--draw", draw)
        assert code == 2
        assert "holds the data itself" in errors
    masks = clip.parent / "set" / "masks"
    masks.mkdir(parents=True)
    (masks.parent / "images").symlink_to(clip)
    assert run(make_bundle(), masks.parent, "--draw", masks)[0] == 2
    assert {path.name: path.read_bytes() for path in clip.iterdir()} == before


def test_help_names_every_flag_with_its_default(run, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for flag in ("--fps", "--policy", "--deadline-ms", "--out", "--draw", "--seconds", "--engine",
                 "--threads", "--json", "--verbose", "--quiet"):  # fmt: skip
        assert flag in text
    assert "drop_oldest,drop_newest,wait" in text
    assert "(default: auto)" in text
    assert "--track" not in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--policy", "newest"], "drop_oldest"),
        (["--policy", "drop_oldest"], "needs a rate"),
        (["--fps", "0"], "fps 0"),
        (["--fps", "fast"], "--fps"),
        (["--deadline-ms", "-1"], "deadline -1"),
        (["--seconds", "0"], "--seconds 0"),
        (["--fps", "1e15"], "0.01 to 10000"),
        (["--fps", "1e-10"], "0.01 to 10000"),
        (["--threads", "1099511627776"], "from 1 to 1024"),
        (["--out", ""], "names no file"),
        (["--draw", ""], "names no file"),
        (["--out", "/dev/null"], "no regular file"),
        (["--seconds", "inf"], "--seconds inf"),
        (["--seconds", "5", "--fps", "-1"], "fps -1"),
        (["--seconds", "5", "--fps", "nan"], "fps nan"),
        (["--fps", "inf"], "fps inf"),
        (["--threads", "0"], "threads 0"),
        (["--engine", "tpu"], "onnxruntime"),
        (["--track"], "--track"),
        (["--sec", "3"], "--sec"),
    ],
)
def test_wrong_flags_are_usage_errors_with_the_valid_ones(run, make_bundle, clip, arguments, words):
    code, text, errors = run(make_bundle(), clip, *arguments, "--json")
    assert code == 2
    assert words in errors
    assert errors.count("\n") == 1
    assert json.loads(text)["error"]["exit_code"] == 2


def test_what_is_read_is_never_written_over(run, make_bundle, clip, tmp_path):
    bundle = make_bundle()
    before = bundle.read_bytes()
    link = tmp_path / "link.jsonl"
    link.symlink_to(bundle)
    for out in (bundle, link):
        code, _, errors = run(bundle, clip, "--out", out)
        assert (code, "is an input" in errors) == (2, True)
    assert bundle.read_bytes() == before
    image = sorted(clip.glob("*.png"))[0]
    assert run(bundle, clip, "--out", image)[0] == 2
    assert run(bundle, clip, "--draw", clip)[0] == 2


def test_a_folder_as_out_is_refused_before_the_first_frame(run, make_bundle, clip, tmp_path):
    code, _, errors = run(make_bundle(), clip, "--out", tmp_path)
    assert (code, errors.count("\n")) == (1, 1)
    assert str(tmp_path) in errors
    assert ".part" not in errors


def test_a_full_disk_while_drawing_keeps_the_lines(run, make_bundle, clip, tmp_path, monkeypatch):
    drawn = []

    def fills_up(path, data):
        drawn.append(path)
        if len(drawn) == 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(command, "write_atomic", fills_up)
    out = tmp_path / "out.jsonl"
    code, _, errors = run(make_bundle(), clip, "--out", out, "--draw", tmp_path / "drawn")
    assert code == 1
    assert "disk is full" in errors
    assert len(out.read_text().splitlines()) == 3


def test_no_arguments_is_a_usage_error(run):
    code, _, errors = run()
    assert code == 2
    assert "BUNDLE" in errors


def test_ffmpegs_own_messages_can_be_turned_on(run, monkeypatch):
    monkeypatch.setenv("OPENCV_FFMPEG_LOGLEVEL", "32")
    run()
    assert os.environ["OPENCV_FFMPEG_LOGLEVEL"] == "32"
