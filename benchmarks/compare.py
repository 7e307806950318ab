"""Reports side by side. The files may come from anywhere, so nothing in them is believed."""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from irstd.benchmarks.report import KINDS, SCHEMA_VERSION
from irstd.benchmarks.text import DEVELOPMENT_NOTE, align, number
from irstd.errors import InputError

LARGEST_BYTES = 4 << 20  # a report is a few KiB; raw samples are in a file of their own
DEEPEST = 16  # levels of nesting; a report has 4
LONGEST_TEXT = 500  # of a value that is printed

# The figures that are compared, by kind: heading and path in the report.
FIGURES: dict[str, dict[str, tuple[str, ...]]] = {
    "latency": {
        "p50 ms": ("latency_ms", "p50"),
        "p90 ms": ("latency_ms", "p90"),
        "p99 ms": ("latency_ms", "p99"),
        "p99.9 ms": ("latency_ms", "p99_9"),
        "max ms": ("latency_ms", "max"),
        "frames/s": ("throughput_fps",),
        "pre ms": ("stages_ms", "pre"),
        "infer ms": ("stages_ms", "infer"),
        "post ms": ("stages_ms", "post"),
    },
    "paced": {
        "rate Hz": ("rate_hz",),
        "delivered": ("delivered",),
        "late": ("late",),
        "dropped": ("dropped",),
        "longest miss run": ("longest_miss_run",),
        "p50 ms": ("latency_ms", "p50"),
        "p99 ms": ("latency_ms", "p99"),
        "max ms": ("latency_ms", "max"),
        "jitter std ms": ("jitter_ms", "std"),
        "jitter p99 ms": ("jitter_ms", "p99"),
    },
    "accuracy": {
        "IoU %": ("iou",),
        "nIoU %": ("niou",),
        "Pd %": ("pd",),
        "Fa 1e-6": ("fa",),
        "HSE-P %": ("hse_p",),
        "HSE-T %": ("hse_t",),
        "HSE %": ("hse",),
        "targets": ("targets",),
        "threshold": ("threshold",),
    },
}
_MACHINE = ("cpu_model", "cpu_cores", "device", "machine")
_TEXTS = ("engine", "bundle_sha256", "numbers", "network", "precision")
_SAME: dict[str, dict[str, tuple[str, ...]]] = {  # what should not differ, by kind
    "latency": {"threads": ("threads",), "frames of another hash": ("footage", "sha256")},
    "paced": {"threads": ("threads",), "frames of another hash": ("footage", "sha256")},
    "accuracy": {"data of another hash": ("data_sha256",)},
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure of all reports: the values, and for each what it is against the first.

    `change` is value / first for speeds, and value - first for accuracy; None where the first is 0.
    """

    name: str
    values: tuple[float, ...]
    change: tuple[float | None, ...]


def read_report(path: Path) -> dict[str, Any]:
    """Read and check one report.

    Returns:
        The report, with all figures of its kind finite numbers.

    Raises:
        InputError: Missing, too large, not JSON, not a report, or of another schema version.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    if len(data) > LARGEST_BYTES:
        raise InputError(f"{path}: over {LARGEST_BYTES >> 20} MiB; wanted a report of irstd-bench")
    try:
        report = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); wanted a report of irstd-bench") from error
    if not isinstance(report, dict) or "schema_version" not in report:
        raise InputError(f"{path}: JSON, but not a report of irstd-bench (no schema_version)")
    _check_depth(path, report)
    _check_fields(path, report)
    return report


def read_reports(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Read reports that can stand in one table.

    Raises:
        InputError: As `read_report`; or the kinds differ, or CPU stands beside a device.
    """
    reports = [read_report(path) for path in paths]
    for path, report in zip(paths[1:], reports[1:], strict=True):
        for name in ("kind", "numbers"):
            if report.get(name) != reports[0].get(name):
                raise InputError(
                    f"{path}: {name} {report.get(name)!r}, but {paths[0]} has "
                    f"{reports[0].get(name)!r}; compare reports of one kind and one sort of device"
                )
    return reports


def compare(reports: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return one row for each figure of reports of one kind, the first being the reference."""
    kind = reports[0]["kind"]
    rows: list[Row] = []
    for name, path in FIGURES[kind].items():
        values = tuple(float(_lookup(report, path)) for report in reports)
        first = values[0]
        change: tuple[float | None, ...]
        if kind == "accuracy":
            change = tuple(value - first for value in values)
        else:
            change = tuple(value / first if first else None for value in values)
        rows.append(Row(name, values, change))
    return rows


def changes(reports: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    """Return what each figure is against the first report's, by heading, one entry a report."""
    return {row.name: list(row.change) for row in compare(reports)}


def name_reports(paths: Sequence[Path]) -> list[str]:
    """Return short names that tell the files apart: their stems, or whole paths where needed."""
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [str(path) for path in paths]


def find_differences(names: Sequence[str], reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what makes reports hard to compare, one line each; `names` are those of the files."""
    first = reports[0]
    found: list[str] = []
    for name, report in zip(names, reports, strict=True):
        for what, ours, theirs in _differences(first, report):
            found.append(f"{name}: {what} {theirs}, but {names[0]} has {ours}")
        validity = report.get("validity")
        if isinstance(validity, Mapping) and validity.get("ok") is not True:
            found.append(f"{name}: not a stable measurement")
    if len(reports) > 1 and first["kind"] != "accuracy":
        found.append(
            "measured one after the other; for a ratio to rely on, measure in turns with "
            "irstd-bench latency BUNDLE --against OTHER"
        )
    if first.get("numbers") == "development" and first["kind"] != "accuracy":
        found.append(DEVELOPMENT_NOTE)
    return found


def comparison_text(
    names: Sequence[str], reports: Sequence[Mapping[str, Any]], warnings: Sequence[str]
) -> str:
    """Return the comparison as an aligned table with notes under it."""
    kind = reports[0]["kind"]
    sign = "+.4g" if kind == "accuracy" else ".3f"
    unit = "" if kind == "accuracy" else "x"
    lines = [("", *(cell for name in names for cell in (name, "")))]
    lines.append(("", *(cell for report in reports for cell in (report["engine"], ""))))
    for row in compare(reports):
        cells = [row.name]
        for index, (value, change) in enumerate(zip(row.values, row.change, strict=True)):
            whole = value.is_integer() and abs(value) < 1e9
            cells.append(number(int(value) if whole else value))
            shown = "" if index == 0 else "-" if change is None else f"{change:{sign}}{unit}"
            cells.append(shown)
        lines.append(tuple(cells))
    return "\n".join([*align(lines, indent=""), *(f"note: {warning}" for warning in warnings)])


def _check_depth(path: Path, report: object) -> None:
    level = [report]
    for _ in range(DEEPEST):
        inner: list[object] = []
        for value in level:
            if isinstance(value, dict):
                inner += value.values()
            elif isinstance(value, list):
                inner += value
        level = inner
    if level:
        raise InputError(f"{path}: nested more than {DEEPEST} deep; not a report of irstd-bench")


def _check_fields(path: Path, report: Mapping[str, Any]) -> None:
    version, kind = report["schema_version"], report.get("kind")
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{path}: schema version {version!r:.40}; this tool reads {SCHEMA_VERSION}"
        )
    if kind not in KINDS:
        raise InputError(f"{path}: kind {kind!r:.40}; wanted one of {', '.join(KINDS)}")
    for name in _TEXTS:
        value = report.get(name)
        if not (isinstance(value, str) and value.isprintable() and len(value) <= LONGEST_TEXT):
            raise InputError(f"{path}: {name} is {value!r:.40}; wanted a line of text")
    environment = report.get("environment")
    if not isinstance(environment, dict):
        raise InputError(f"{path}: no environment; wanted a whole report of irstd-bench")
    for figure in FIGURES[kind].values():
        value = _lookup(report, figure)
        if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
            raise InputError(f"{path}: {'.'.join(figure)} is {value!r:.40}; wanted a number")


def _differences(
    first: Mapping[str, Any], other: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    paths: dict[str, tuple[str, ...]] = {
        f"another machine, {name}": ("environment", name) for name in _MACHINE
    }
    paths |= _SAME[first["kind"]]
    for what, path in paths.items():
        ours, theirs = _lookup(first, path), _lookup(other, path)
        if ours != theirs:
            yield what, f"{ours!r:.50}", f"{theirs!r:.50}"


def _lookup(report: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = report
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the range of a float
        return False


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
