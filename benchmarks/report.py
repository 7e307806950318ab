"""The JSON reports, field by field (interface.md, "irstd-bench"). Names here are a contract."""

import csv
import dataclasses
import datetime
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irstd.benchmarks.accuracy import AccuracyRun
from irstd.benchmarks.conditions import Conditions
from irstd.benchmarks.footage import Footage
from irstd.benchmarks.latency import LatencyRun, Ratio, timer_overhead_us
from irstd.benchmarks.paced import DELIVERED, DROPPED, LATE, STATUSES, PacedRun
from irstd.benchmarks.statistics import percentile_interval, summarize
from irstd.benchmarks.validity import Validity, WarmUp, Window, judge, thirds
from irstd.files import write_atomic
from irstd.manifest import Manifest
from irstd.targets import find_target
from irstd.version import __version__

SCHEMA_VERSION = 1
KINDS = ("latency", "paced", "accuracy")
QUOTABLE_P99_FRAMES = 270_336  # below, a p99 is an indication (MLPerf's 99 % confidence)

Report = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Subject:
    """What was measured, and how it was started.

    Attributes:
        bundle: Name of the file.
        bundle_sha256: Of the whole file.
        manifest: What the bundle says of itself.
        engine: As the detector names it.
        threads: Of the engine; None if left to the engine.
        load_ms: Time to open the bundle; None where it was not taken.
    """

    bundle: str
    bundle_sha256: str
    manifest: Manifest
    engine: str
    threads: int | None
    load_ms: float | None = None


def begin_report(
    kind: str, subject: Subject | None, command: str, environment: Mapping[str, Any]
) -> Report:
    """Return the fields that all kinds of report share; None for what is no bundle."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "tool": {"name": "irstd-bench", "version": __version__},
        "command": command,
        "started_at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        **(describe_subject(subject) if subject else {}),
        "environment": dict(environment),
    }


def describe_subject(subject: Subject) -> Report:
    """Return the fields that say what was measured."""
    manifest = subject.manifest
    spec = manifest.input
    return {
        "bundle": subject.bundle,
        "bundle_sha256": subject.bundle_sha256,
        "network": manifest.network,
        "precision": manifest.precision.value,
        "calibration": manifest.calibration,
        "target": manifest.target,
        "input_shape": list(spec.shape),
        "bit_depth": spec.bit_depth,
        "fit": spec.fit.value,
        "engine": subject.engine,
        "threads": subject.threads,
        "load_ms": subject.load_ms,
        "numbers": "development"
        if find_target(manifest.target).compute_capability is None
        else "device",
    }


def latency_fields(run: LatencyRun, conditions: Conditions, footage: Footage) -> Report:
    """Return the fields of a latency report, verdict included."""
    samples = run.samples
    windows = thirds(samples.started_s, samples.total_ms, samples.seconds)
    verdict = judge(
        warm=run.warm,
        windows=windows,
        seconds=samples.seconds,
        frames=len(samples.total_ms),
        clocks=conditions.clocks,
        warnings=_warnings(conditions, footage),
    )
    return {
        "frames": len(samples.total_ms),
        "seconds": samples.seconds,
        **_latency(samples.total_ms),
        "stages_ms": _stages(samples.pre_ms, samples.infer_ms, samples.post_ms),
        "throughput_fps": len(samples.total_ms) / samples.seconds,
        "outside_engine_share": samples.outside_engine_share,
        "unaccounted_share": samples.unaccounted_share,
        "detections_per_frame": float(samples.detections.mean()),
        **_course(run.first_frame_ms, run.warm, windows, verdict),
        **_surroundings(conditions, footage),
    }


def against_fields(
    other: Subject, run: LatencyRun, ratio: Ratio, conditions: Conditions, footage: Footage
) -> Report:
    """Return the field `against`: another bundle, measured in turns with the first."""
    fields = latency_fields(run, conditions, footage)
    kept = ("frames", "seconds", "latency_ms", "stages_ms", "throughput_fps", "validity")
    return {
        "against": {
            **describe_subject(other),
            **{name: fields[name] for name in kept},
            "ratio": {"p50": ratio.p50, **dataclasses.asdict(ratio.interval)},
        }
    }


def paced_fields(run: PacedRun, conditions: Conditions, footage: Footage) -> Report:
    """Return the fields of a paced report, verdict included."""
    kept = run.answered
    latency_ms = run.latency_ms[kept]
    windows = thirds(run.captured_at_s[kept], latency_ms, run.seconds)
    verdict = judge(
        warm=run.warm,
        windows=windows,
        seconds=run.seconds,
        frames=len(run.status),
        clocks=conditions.clocks,
        warnings=_warnings(conditions, footage),
    )
    return {
        "rate_hz": run.rate_hz,
        "seconds": run.seconds,
        "frames": len(run.status),
        "delivered": run.count(DELIVERED),
        "late": run.count(LATE),
        "dropped": run.count(DROPPED),
        "longest_miss_run": run.longest_miss_run,
        "miss_share": 1 - run.count(DELIVERED) / len(run.status),
        "deadline_ms": run.deadline_ms,
        "max_late_ms": run.max_late_ms,
        "max_stale_ms": run.max_stale_ms,
        "jitter_ms": dataclasses.asdict(run.jitter_ms),
        **_latency(latency_ms),
        "stages_ms": _stages(run.pre_ms[kept], run.infer_ms[kept], run.post_ms[kept]),
        "throughput_fps": len(latency_ms) / run.seconds,
        **_course(run.first_frame_ms, run.warm, windows, verdict),
        **_surroundings(conditions, footage),
    }


def accuracy_fields(run: AccuracyRun, data: str, list_file: str | None) -> Report:
    """Return the fields of an accuracy report."""
    return {
        **dataclasses.asdict(run.scores),
        "data": data,
        "list": list_file,
        "data_sha256": run.data_sha256,
    }


def write_raw_latency(path: Path, run: LatencyRun) -> None:
    """Write one CSV line for each measured frame."""
    samples = run.samples
    header = ("frame", "started_s", "total_ms", "pre_ms", "infer_ms", "post_ms", "detections")
    columns = (
        np.arange(len(samples.total_ms)),
        samples.started_s,
        samples.total_ms,
        samples.pre_ms,
        samples.infer_ms,
        samples.post_ms,
        samples.detections,
    )
    _write_csv(path, header, columns)


def write_raw_paced(path: Path, run: PacedRun) -> None:
    """Write one CSV line for each scheduled frame; times of a dropped frame are empty."""
    header = (
        "frame", "status", "captured_at_s", "ready_at_s", "latency_ms",
        "pre_ms", "infer_ms", "post_ms",
    )  # fmt: skip
    columns = (
        np.arange(len(run.status)),
        np.array(STATUSES)[run.status],
        run.captured_at_s,
        run.ready_at_s,
        run.latency_ms,
        run.pre_ms,
        run.infer_ms,
        run.post_ms,
    )
    _write_csv(path, header, columns)


def _write_csv(
    path: Path, header: tuple[str, ...], columns: tuple[NDArray[np.generic], ...]
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in zip(*(column.tolist() for column in columns), strict=True):
        writer.writerow(_cell(value) for value in row)
    write_atomic(path, text.getvalue())


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.6f}"
    return str(value)


def _latency(times_ms: NDArray[np.float64]) -> Report:
    summary = summarize(times_ms)
    return {
        "latency_ms": dataclasses.asdict(summary),
        "p99_interval_ms": dataclasses.asdict(percentile_interval(times_ms, 99)),
        "p99_indicative": len(times_ms) < QUOTABLE_P99_FRAMES,
        "guaranteed_fps": 1e3 / summary.p99,
    }


def _stages(
    pre_ms: NDArray[np.float64], infer_ms: NDArray[np.float64], post_ms: NDArray[np.float64]
) -> Report:
    named = {"pre": pre_ms, "infer": infer_ms, "post": post_ms}
    return {name: float(np.median(times)) for name, times in named.items()}


def _course(
    first_frame_ms: float, warm: WarmUp, windows: tuple[Window, ...], verdict: Validity
) -> Report:
    return {
        "validity": {
            "ok": verdict.ok,
            "publishable": verdict.publishable,
            "reasons": list(verdict.reasons),
            "warnings": list(verdict.warnings),
        },
        "first_frame_ms": first_frame_ms,
        "warm_up": {
            "settled": warm.settled,
            "seconds": warm.seconds,
            "windows": [dataclasses.asdict(window) for window in warm.windows],
        },
        "windows": [dataclasses.asdict(window) for window in windows],
    }


def _surroundings(conditions: Conditions, footage: Footage) -> Report:
    return {
        "footage": {
            "description": footage.description,
            "frames": len(footage.frames),
            "left_out": footage.left_out,
            "sha256": footage.sha256,
        },
        "conditions": dataclasses.asdict(conditions),
        "timer_overhead_us": timer_overhead_us(),
    }


def _warnings(conditions: Conditions, footage: Footage) -> tuple[str, ...]:
    left_out = footage.left_out
    if not left_out:
        return conditions.warnings
    return *conditions.warnings, f"{left_out} images did not fit into memory and were left out"
