"""`irstd-bench`: latency, paced, accuracy, kernels, compare."""

import argparse
import contextlib
import importlib
import logging
import math
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from irstd.benchmarks.accuracy import measure_accuracy
from irstd.benchmarks.compare import (
    changes,
    comparison_text,
    find_differences,
    name_reports,
    read_reports,
)
from irstd.benchmarks.conditions import Watch
from irstd.benchmarks.footage import SIMULATED_FRAMES, SIMULATED_SEED, load_footage
from irstd.benchmarks.kernels import OPERATORS
from irstd.benchmarks.latency import measure_interleaved, measure_latency
from irstd.benchmarks.paced import measure_paced
from irstd.benchmarks.progress import Progress
from irstd.benchmarks.report import (
    SCHEMA_VERSION,
    Report,
    Subject,
    accuracy_fields,
    against_fields,
    begin_report,
    latency_fields,
    paced_fields,
    write_raw_latency,
    write_raw_paced,
)
from irstd.benchmarks.text import accuracy_text, latency_text, paced_text
from irstd.cli import Outcome, add_verb, make_parser, run, to_json
from irstd.errors import BenchmarkInvalid, UsageError
from irstd.files import check_writable, to_path, write_atomic
from irstd.fingerprint import environment
from irstd.frames import list_labelled
from irstd.runtime.detector import Detector, open_bundle
from irstd.runtime.sessions import ENGINES
from irstd.runtime.stream import POLICIES, check_rate

PROG = "irstd-bench"
DEFAULT_SECONDS = 30.0
DEFAULT_THREADS = 1
LONGEST_S = 86_400.0
SUITES = {"cpu": "cpu_suite", "cuda": "gpu_suite"}  # of `kernels`, loaded when asked for
MOST_FRAMES = 20_000_000  # of a paced run, whose times are held in memory

_Number = TypeVar("_Number", int, float)

_log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return run(make_command(shlex.join([PROG, *arguments])), arguments)


def make_command(command_line: str) -> argparse.ArgumentParser:
    """Return the parser; `command_line` is what reports say they were made with."""
    parser = make_parser(PROG, "Measure a bundle: how fast, how steadily, how accurately.")
    parser.set_defaults(command_line=command_line)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    latency = add_verb(verbs, "latency", _latency, "time frames one after the other (closed loop)")
    _add_bundle(latency)
    _add_speed_flags(latency)
    latency.add_argument(
        "--against", type=to_path, metavar="BUNDLE", help="measure another bundle in turns with it"
    )
    latency.add_argument(
        "--against-engine", default="auto", choices=("auto", *ENGINES), help="engine of the other"
    )

    paced = add_verb(verbs, "paced", _paced, "time frames that arrive at a fixed rate (open loop)")
    _add_bundle(paced)
    paced.add_argument("--fps", type=_rate, required=True, metavar="N", help="frames a second")
    paced.add_argument(
        "--policy", choices=POLICIES, default="drop_oldest", help="when frames pile up"
    )
    paced.add_argument(
        "--deadline-ms", type=_positive, metavar="D", help="after arrival; 1000 / fps if not given"
    )
    _add_speed_flags(paced)

    accuracy = add_verb(verbs, "accuracy", _accuracy, "score a labelled folder as deployed")
    _add_bundle(accuracy)
    accuracy.add_argument(
        "--data", type=to_path, required=True, metavar="DIR", help="folder with images/ and masks/"
    )
    accuracy.add_argument("--list", type=to_path, metavar="FILE", help="only the stems in FILE")
    accuracy.add_argument(
        "--threshold", type=_probability, metavar="T", help="the bundle's if not given"
    )
    _add_threads(accuracy)
    _add_out(accuracy)

    kernels = add_verb(verbs, "kernels", _kernels, "time the fused kernels beside their peers")
    kernels.add_argument("--op", choices=OPERATORS, help="one operator; all if not given")
    kernels.add_argument("--device", choices=tuple(SUITES), default="cpu", help="where")
    _add_threads(kernels)
    _add_out(kernels)

    compare = add_verb(verbs, "compare", _compare, "put reports side by side")
    compare.add_argument(
        "reports", nargs="+", type=to_path, metavar="REPORT.json", help="the first is the reference"
    )
    _add_out(compare)
    _add_html(compare)
    return parser


def _latency(options: argparse.Namespace) -> Outcome:
    _check_outputs(options)
    with contextlib.ExitStack() as opened:
        detector, subject = opened.enter_context(_open(options, options.bundle, options.engine))
        report = begin_report("latency", subject, options.command_line, environment())
        footage = load_footage(options.data, detector.manifest.input)
        seconds = options.seconds
        if options.against is None:
            with _observed(options, "measuring", seconds) as watch:
                own = measure_latency(detector, footage.frames, seconds, observer=watch)
            conditions = watch.finish()
            report |= latency_fields(own, conditions, footage)
        else:
            other, other_subject = opened.enter_context(
                _open(options, options.against, options.against_engine)
            )
            with _observed(options, "measuring both", 2 * seconds) as watch:
                own, others, ratio = measure_interleaved(
                    detector, other, footage.frames, seconds, observer=watch
                )
            conditions = watch.finish()
            report |= latency_fields(own, conditions, footage)
            report |= against_fields(other_subject, others, ratio, conditions, footage)
    if options.raw is not None:
        write_raw_latency(options.raw, own)
        report["raw_file"] = options.raw.name
    if options.html is not None:
        from irstd.benchmarks.page import latency_page

        write_atomic(options.html, latency_page(report, own))
    return _finish(options, report, latency_text(report))


def _paced(options: argparse.Namespace) -> Outcome:
    _check_outputs(options)
    if options.fps * options.seconds > MOST_FRAMES:
        raise UsageError(f"--fps times --seconds is above {MOST_FRAMES} frames; measure for less")
    with _open(options, options.bundle, options.engine) as (detector, subject):
        report = begin_report("paced", subject, options.command_line, environment())
        report["policy"] = options.policy
        footage = load_footage(options.data, detector.manifest.input)
        with _observed(options, "measuring", options.seconds) as watch:
            paced = measure_paced(
                detector,
                footage.frames,
                options.fps,
                options.seconds,
                policy=options.policy,
                deadline_ms=options.deadline_ms,
                observer=watch,
            )
        report |= paced_fields(paced, watch.finish(), footage)
    if options.raw is not None:
        write_raw_paced(options.raw, paced)
        report["raw_file"] = options.raw.name
    if options.html is not None:
        from irstd.benchmarks.page import paced_page

        write_atomic(options.html, paced_page(report, paced))
    return _finish(options, report, paced_text(report))


def _accuracy(options: argparse.Namespace) -> Outcome:
    _check_outputs(options)
    files = list_labelled(options.data, options.list, masks_required=True)
    with _open(options, options.bundle, options.engine) as (detector, subject):
        report = begin_report("accuracy", subject, options.command_line, environment())
        threshold = detector.manifest.threshold if options.threshold is None else options.threshold
        with Progress("scoring", len(files), "frames", enabled=not options.quiet) as progress:
            scored = measure_accuracy(detector, files, threshold, between=progress.show)
    list_name = None if options.list is None else str(options.list)
    report |= accuracy_fields(scored, str(options.data), list_name)
    return _finish(options, report, accuracy_text(report))


def _kernels(options: argparse.Namespace) -> Outcome:
    _check_outputs(options)
    suite = importlib.import_module(f"irstd.benchmarks.kernels.{SUITES[options.device]}")
    report = begin_report("kernels", None, options.command_line, environment())
    with Progress("timing kernels", 100, "%", enabled=not options.quiet) as progress:
        report |= suite.kernels_report(options.op, options.threads, progress.show)
    _write_out(options, report)
    return Outcome(report, suite.kernels_text(report))


def _compare(options: argparse.Namespace) -> Outcome:
    _check_outputs(options)
    reports = read_reports(options.reports)
    names = name_reports(options.reports)
    warnings = find_differences(names, reports)
    comparison: Report = {
        "schema_version": SCHEMA_VERSION,
        "kind": "comparison",
        "of": reports[0]["kind"],
        "command": options.command_line,
        "names": names,
        "reports": reports,
        "changes": changes(reports),
        "warnings": warnings,
    }
    if options.html is not None:
        from irstd.benchmarks.page import comparison_page

        write_atomic(options.html, comparison_page(names, reports, warnings))
    _write_out(options, comparison)
    return Outcome(comparison, comparison_text(names, reports, warnings))


@contextlib.contextmanager
def _open(
    options: argparse.Namespace, path: Path, engine: str
) -> Iterator[tuple[Detector, Subject]]:
    started_s = time.perf_counter()
    with open_bundle(path, engine=engine, threads=options.threads) as detector:
        load_ms = 1e3 * (time.perf_counter() - started_s)
        yield (
            detector,
            Subject(
                bundle=path.name,
                bundle_sha256=detector.bundle_sha256,
                manifest=detector.manifest,
                engine=detector.engine,
                threads=options.threads,
                load_ms=load_ms,
            ),
        )


@contextlib.contextmanager
def _observed(options: argparse.Namespace, label: str, seconds: float) -> Iterator[Watch]:
    """Show progress and sample the machine between frames."""
    with Progress(label, seconds, "s", enabled=not options.quiet) as progress:
        progress.show(0)
        yield Watch(progress.show)


def _finish(options: argparse.Namespace, report: Report, text: str) -> Outcome:
    """Write the report where it is wanted, and turn a verdict into the exit code."""
    _write_out(options, report)
    validity = report.get("validity")
    if validity is None or validity["ok"]:
        return Outcome(report, text)
    if options.json or options.quiet:  # else the text says so
        _log.error("not a valid measurement: %s", "; ".join(validity["reasons"]))
    return Outcome(report, text, BenchmarkInvalid.exit_code)


def _write_out(options: argparse.Namespace, report: Report) -> None:
    if options.out is not None:
        write_atomic(options.out, to_json(report) + "\n")


def _check_outputs(options: argparse.Namespace) -> None:
    """Refuse before measuring what could not be written after it."""
    named = {
        flag: path
        for flag in ("out", "raw", "html")
        if (path := getattr(options, flag, None)) is not None
    }
    for flag, path in named.items():
        if path.is_dir():
            raise UsageError(f"--{flag} {path}: is a folder; name a file")
        check_writable(path)
    if len(set(named.values())) < len(named):
        raise UsageError("--out, --raw and --html name the same file; name different ones")
    if "html" in named:
        from irstd.benchmarks.plots import require_matplotlib

        require_matplotlib()


def _add_bundle(verb: Any) -> None:
    verb.add_argument("bundle", type=to_path, metavar="BUNDLE", help="a .irstd file")
    verb.add_argument(
        "--engine", default="auto", choices=("auto", *ENGINES), help="auto: the bundle's choice"
    )


def _add_speed_flags(verb: Any) -> None:
    simulated = f"{SIMULATED_FRAMES} simulated frames of seed {SIMULATED_SEED} if not given"
    verb.add_argument("--data", type=to_path, metavar="DIR", help=f"folder of frames; {simulated}")
    verb.add_argument(
        "--seconds", type=_seconds, default=DEFAULT_SECONDS, metavar="S", help="after the warm-up"
    )
    _add_threads(verb)
    _add_out(verb)
    verb.add_argument("--raw", type=to_path, metavar="FILE", help="write each frame's times as CSV")
    _add_html(verb)


def _add_threads(verb: Any) -> None:
    verb.add_argument(
        "--threads", type=_count, default=DEFAULT_THREADS, metavar="N", help="of the engine"
    )


def _add_out(verb: Any) -> None:
    verb.add_argument("--out", type=to_path, metavar="FILE", help="write the report as JSON")


def _add_html(verb: Any) -> None:
    verb.add_argument("--html", type=to_path, metavar="FILE", help="write a page with plots")


def _positive(text: str) -> float:
    value = _parse(float, text, "a number above 0")
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _seconds(text: str) -> float:
    value = _positive(text)
    if value > LONGEST_S:
        raise argparse.ArgumentTypeError(f"{text!r} is above {LONGEST_S:.0f} seconds")
    return value


def _rate(text: str) -> float:
    value = _positive(text)
    check_rate(value)
    return value


def _count(text: str) -> int:
    value = _parse(int, text, "a whole number above 0")
    if not 1 <= value <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 1024")
    return value


def _probability(text: str) -> float:
    value = _parse(float, text, "a number from 0 to below 1")
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to below 1")
    return value


def _parse(kind: Callable[[str], _Number], text: str, wanted: str) -> _Number:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}") from None
