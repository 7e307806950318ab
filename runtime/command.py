"""`irstd-run`: a bundle over an image, a folder or a video, detections out."""

import argparse
import contextlib
import dataclasses
import itertools
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from irstd import cli
from irstd.errors import InputError, IrstdError, UsageError
from irstd.files import atomic_open, check_writable, to_path, write_atomic
from irstd.frames import Frame
from irstd.runtime.detector import Detector, open_bundle
from irstd.runtime.sessions import ENGINES
from irstd.runtime.sources import FrameSource, open_source
from irstd.runtime.stream import POLICIES, StreamResult, check_rate, run_stream
from irstd.types import Detections

LONGEST_S = 1e9
Failure = IrstdError | OSError | KeyboardInterrupt

_DESCRIPTION = """Run a bundle over an image, a folder of images in name order, or a video.

Lines of --out are written as frames finish, to a temporary file that takes the name at the end.
Interrupted, or stopped by a frame that cannot be read, it keeps the whole lines of all frames so
far and the exit code tells. Without a frame done, nothing is written."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return cli.run(_make_parser(), argv)


def _make_parser() -> argparse.ArgumentParser:
    parser = cli.make_parser("irstd-run", _DESCRIPTION)
    parser.formatter_class = _HelpFormatter
    cli.add_common_flags(parser, _run)
    parser.add_argument("bundle", metavar="BUNDLE", type=to_path, help="a .irstd file")
    parser.add_argument(
        "source", metavar="SOURCE", type=to_path, help="an image, a folder of images, or a video"
    )
    parser.add_argument(
        "--fps", type=float, metavar="N", help="frame rate; None takes frames as fast as they go"
    )
    parser.add_argument(
        "--policy",
        choices=POLICIES,
        help="what happens to frames that arrive while one is inferred; None is drop_oldest, "
        "without --fps wait",
    )
    parser.add_argument(
        "--deadline-ms",
        type=float,
        metavar="D",
        help="from a frame's arrival to its detections; None is one frame time",
    )
    parser.add_argument(
        "--seconds", type=float, metavar="S", help="stop after that time; None goes to the end"
    )
    parser.add_argument(
        "--out", type=to_path, metavar="DETECTIONS.jsonl", help="write one JSON object a frame"
    )
    parser.add_argument(
        "--draw", type=to_path, metavar="DIR", help="write an annotated PNG for each inferred frame"
    )
    parser.add_argument(
        "--engine", choices=("auto", *ENGINES), default="auto", help="auto is the build's choice"
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="of one inference; None is the engine's choice"
    )
    return parser


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults of every flag, and the description with its paragraphs."""


def _run(options: argparse.Namespace) -> cli.Outcome:
    if options.fps is not None:
        check_rate(options.fps)
    if options.seconds is not None and not 0 < options.seconds <= LONGEST_S:
        raise UsageError(f"--seconds {options.seconds}: wanted more than 0, at most {LONGEST_S:g}")
    source = open_source(options.source)
    _check_outputs(options, source)
    with open_bundle(options.bundle, options.engine, options.threads) as detector:
        feed = _Feed(source, detector)
        tally = _Tally()
        failure: Failure | None = None
        with _line_writer(options.out) as write_line:
            try:
                for result in _results(feed, options):
                    tally.count(result)
                    write_line(_to_line(result, source))
                    if options.draw is not None and result.detections is not None:
                        stem = source.stem_of(result.frame_index)
                        _draw(options.draw / f"{stem}.png", feed.frame, result.detections)
            except (IrstdError, OSError, KeyboardInterrupt) as error:
                if not tally.frames:
                    raise
                failure = error
        report = _report(options, detector, source, tally)
    return _outcome(report, failure)


class _Feed:
    """Reads frames, and remembers the last one read, which is the one inferred last.

    The stream reads ahead only after it has yielded the result.
    """

    def __init__(self, source: FrameSource, detector: Detector) -> None:
        self._source = source
        self._detector = detector
        self._index = 0
        self.frame: Frame = np.empty((0, 0), np.uint8)

    def __iter__(self) -> Iterator[Frame]:
        for index, frame in enumerate(self._source.frames()):
            self._index, self.frame = index, frame
            yield frame

    def detect(self, frame: Frame) -> Detections:
        try:
            return self._detector(frame)
        except InputError as error:
            name = self._source.name_of(self._index)
            raise InputError(f"{self._source.path}: {name}: {error}") from error


@dataclasses.dataclass
class _Tally:
    statuses: Counter[str] = dataclasses.field(default_factory=Counter)
    detections: int = 0
    started_s: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def frames(self) -> int:
        return self.statuses.total()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started_s

    def count(self, result: StreamResult) -> None:
        self.statuses[result.status] += 1
        self.detections += 0 if result.detections is None else len(result.detections)


def _results(feed: _Feed, options: argparse.Namespace) -> Iterator[StreamResult]:
    frames: Iterable[Frame] = feed
    fps, seconds = options.fps, options.seconds
    if fps is not None and seconds is not None:
        frames = itertools.islice(feed, math.ceil(fps * seconds))
    ends_s = math.inf if fps is not None or seconds is None else time.monotonic() + seconds
    for result in run_stream(feed.detect, frames, fps, options.policy, options.deadline_ms):
        yield result
        if time.monotonic() >= ends_s:
            return


@contextlib.contextmanager
def _line_writer(path: Path | None) -> Iterator[Callable[[str], None]]:
    """Open the file of lines; what it gets as its name is whole lines, also when interrupted."""
    if path is None:
        yield lambda line: None
        return
    with atomic_open(path) as file:
        whole = 0

        def write(line: str) -> None:
            nonlocal whole
            file.write(f"{line}\n".encode())
            whole = file.tell()

        yield write
        file.truncate(whole)


def _to_line(result: StreamResult, source: FrameSource) -> str:
    return json.dumps(
        {
            "frame_index": result.frame_index,
            "file": source.name_of(result.frame_index),
            "captured_at_s": result.captured_at_s,
            "ready_at_s": result.ready_at_s,
            "status": result.status,
            "detections": [] if result.detections is None else _to_list(result.detections),
        }
    )


def _to_list(found: Detections) -> list[dict[str, Any]]:
    # float32 has 7 digits; the others that float64 would print are noise.
    return [
        {
            "y": round(float(y), 4),
            "x": round(float(x), 4),
            "score": round(float(score), 6),
            "area_px": int(area),
            "box_xyxy": [float(edge) for edge in box],
        }
        for (y, x), score, area, box in zip(
            found.centroid_yx, found.score, found.area_px, found.box_xyxy, strict=True
        )
    ]


def _draw(path: Path, frame: Frame, detections: Detections) -> None:
    import cv2

    from irstd.runtime.draw import annotate

    _, encoded = cv2.imencode(".png", annotate(frame, detections))
    write_atomic(path, encoded.tobytes())


def _check_outputs(options: argparse.Namespace, source: FrameSource) -> None:
    """Refuse what would fail an hour later, or write over what is read."""
    if options.out is not None:
        check_writable(options.out, (options.bundle, *source.files))
    if options.draw is not None:
        check_writable(options.draw / "frame.png")
        folders = {file.parent for file in source.files}
        folders |= {folder.parent / "masks" for folder in folders if folder.name == "images"}
        if options.draw.resolve() in {folder.resolve() for folder in folders}:
            raise UsageError(f"--draw {options.draw}: holds the data itself; name another folder")


def _report(
    options: argparse.Namespace, detector: Detector, source: FrameSource, tally: _Tally
) -> dict[str, Any]:
    elapsed_s = tally.elapsed_s
    inferred = tally.frames - tally.statuses["dropped"]
    return {
        "source": str(source.path),
        "source_frames": source.frame_count,
        "frames": tally.frames,
        "delivered": tally.statuses["delivered"],
        "late": tally.statuses["late"],
        "dropped": tally.statuses["dropped"],
        "detections": tally.detections,
        "fps": options.fps,
        "policy": options.policy or ("wait" if options.fps is None else "drop_oldest"),
        "deadline_ms": options.deadline_ms,
        "elapsed_s": elapsed_s,
        "throughput_fps": inferred / elapsed_s,
        "threshold": detector.manifest.threshold,
        "engine": detector.engine,
        "bundle_sha256": detector.bundle_sha256,
        "out": None if options.out is None else str(options.out),
        "draw": None if options.draw is None else str(options.draw),
    }


def _outcome(report: dict[str, Any], failure: Failure | None) -> cli.Outcome:
    text = (
        f"{report['frames']} frames: {report['delivered']} delivered, {report['late']} late, "
        f"{report['dropped']} dropped; {report['detections']} detections\n"
        f"{report['throughput_fps']:.1f} frames/s on {report['engine']}"
    )
    for name in ("out", "draw"):
        if report[name] is not None:
            text += f"\n{name}: {report[name]}"
    if failure is None:
        return cli.Outcome(report, text)
    if isinstance(failure, KeyboardInterrupt):
        code, line = cli.INTERRUPTED, "interrupted"
    elif isinstance(failure, OSError):
        code, line = 1, cli.explain(failure)
    else:
        code, line = failure.exit_code, " ".join(str(failure).split())
    print(f"irstd-run: {line} (after {report['frames']} frames)", file=sys.stderr)
    error = {"type": type(failure).__name__, "message": line, "exit_code": code}
    return cli.Outcome({**report, "error": error}, text, code)
