"""Write the tables of README.md and of pages in docs/ from the files in benchmarks/results/.

A table stands between `<!-- table:NAME -->` and `<!-- /table -->`, NAME a key of TABLES. Its file
is what `irstd-bench compare ... --out` or one `--out` of a measurement wrote, one row a report or a
kernel; or a JSON object {"command", "columns": [text], "rows": [[text or number]]} of another
program.

    python scripts/readme_tables.py            rewrite the tables
    python scripts/readme_tables.py --check    exit 1 if one is stale, change nothing
"""

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from irstd.errors import InputError, IrstdError
from irstd.files import write_atomic

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    *(ROOT / "docs" / name for name in ("kernels.md", "rtx.md", "estimates.md")),
]
MARKED = re.compile(r"(<!-- table:([\w-]+) -->\n)(.*?)(<!-- /table -->)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Column:
    """One column: its heading, the field of a report that it shows, and how.

    `digits` are those after the point; None shows the value as it is. Of a path only the last part
    is shown.
    """

    heading: str
    field: str
    digits: int | None = None
    is_path: bool = False


SUBJECT = (Column("Network", "network"), Column("Precision", "precision"))
SPEED = (
    Column("Engine", "engine"),
    Column("Threads", "threads"),
    Column("p50 ms", "latency_ms.p50", 2),
    Column("p99 ms", "latency_ms.p99", 2),
    Column("frames/s", "throughput_fps", 0),
    Column("frames/s at p99", "guaranteed_fps", 0),
)
TABLES: dict[str, tuple[str, tuple[Column, ...]]] = {
    "accuracy": (
        "accuracy-acm.json",
        (
            *SUBJECT,
            Column("Calibration", "calibration"),
            Column("Data", "data", is_path=True),
            Column("IoU", "iou", 1),
            Column("nIoU", "niou", 1),
            Column("Pd", "pd", 1),
            Column("Fa 1e-6", "fa", 1),
            Column("HSE", "hse", 1),
        ),
    ),
    "latency": ("latency-acm.json", (*SUBJECT, *SPEED)),
    "against": (
        "latency-acm.json",
        (
            *SUBJECT,
            *SPEED,
            Column("outside the engine", "outside_engine_share", 3),
            Column("FP32 in", "against.engine"),
            Column("p50 ms", "against.latency_ms.p50", 2),
            Column("ratio", "against.ratio.p50", 2),
        ),
    ),
    "paced": (
        "paced-acm.json",
        (
            *SUBJECT,
            Column("frames/s", "rate_hz", 0),
            Column("frames", "frames"),
            Column("delivered", "delivered"),
            Column("late", "late"),
            Column("dropped", "dropped"),
            Column("jitter p99 ms", "jitter_ms.p99", 2),
            Column("p50 ms", "latency_ms.p50", 2),
            Column("p99 ms", "latency_ms.p99", 2),
        ),
    ),
    "rtx-layers": ("rtx-layers.json", ()),  # it brings its columns
    "estimates": ("estimates.json", ()),
    "estimate-cpu": ("estimate-cpu.json", ()),
    "estimate-public": ("estimate-public.json", ()),
    "kernels": (
        "kernels-cpu.json",
        (
            Column("Operator", "op"),
            Column("Case", "case"),
            Column("Values", "dtype"),
            Column("Ours ms", "ours_ms", 2),
            Column("Peer", "peer"),
            Column("Peer ms", "peer_ms", 1),
            Column("Ratio", "ratio", 1),
            Column("Goal", "goal"),
        ),
    ),
}
PEAKS = (
    ("float32 multiply-adds", "float_gmac_s", "G/s"),
    ("multiply-adds of bytes", "int8_gmac_s", "G/s"),
    ("copied memory", "copy_gb_s", "GB/s"),
)
# The ratios that the kernels were written for in the case "reference", by operator, values, peer.
KERNEL_GOALS: dict[tuple[Any, Any, Any], int] = {
    ("ms_deform_attn", "float32", "onnxruntime"): 25,
    ("ms_deform_attn", "uint8", "onnxruntime"): 40,
    ("ms_deform_attn_module", "uint8", "onnxruntime"): 12,
    ("haar_gate", "float32", "onnxruntime"): 6,
    ("spectral_split", "float32", "onnxruntime"): 25,
    ("spectral_split", "float32", "torch"): 6,
}


def fill_tables(text: str, results: Path) -> str:
    """Return a page with every marked table made anew.

    Raises:
        InputError: A table without an entry in TABLES, or a result file that does not serve.
    """

    def fill(match: re.Match[str]) -> str:
        opening, name, _, closing = match.groups()
        if name not in TABLES:
            raise InputError(f"README table {name!r} is unknown; one of {', '.join(TABLES)}")
        file, columns = TABLES[name]
        return f"{opening}{make_table(results / file, columns)}{closing}"

    return MARKED.sub(fill, text)


def make_table(path: Path, columns: Sequence[Column]) -> str:
    """Return the lines of one table and where it comes from.

    Raises:
        InputError: No such file, not JSON, or a field that is missing.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no usable result file ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a JSON object; wanted what irstd-bench --out writes")
    if "rows" in content:
        headings = content["columns"]
        down = list(zip(*content["rows"], strict=True))
        numeric = [all(isinstance(value, int | float) for value in column) for column in down]
        rows = [list(row) for row in zip(*map(_cells, down), strict=True)]
    else:
        rows_of = {"comparison": "reports", "kernels": "results"}.get(content.get("kind", ""))
        reports = content[rows_of] if rows_of else [content]
        if rows_of == "results":
            reports = [{**report, "goal": _goal(report)} for report in reports]
        headings = [column.heading for column in columns]
        rows = [[_field(path, report, column) for column in columns] for report in reports]
        numeric = [column.digits is not None for column in columns]
    lines = [headings, ["---:" if right else "---" for right in numeric], *rows]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"{table}\n{_origin(path, content)}\n"


def _origin(path: Path, content: Mapping[str, Any]) -> str:
    command = re.sub(r"(?<=\s)/\S*/", "", content["command"])  # no folders of a machine
    origin = f"`{command}`, in `benchmarks/results/{path.name}`"
    reports = content.get("reports", [content])
    machines = {
        f"{report['environment']['cpu_model']}, {report['environment']['cpu_cores']} cores"
        for report in reports
        if report.get("kind") in ("latency", "paced", "kernels")
    }
    method = [content["method"]] if "method" in content else []
    measured = [f"measured on {machine}" for machine in sorted(machines)]
    peaks = content.get("roofline", {})
    measured += [
        f"a core's {name}: {peaks[field]:.1f} {unit}"
        for name, field, unit in PEAKS
        if peaks.get(field)
    ]
    return "; ".join([origin, *method, *measured])


def _goal(report: Mapping[str, Any]) -> int | None:
    """Return the ratio that a kernel was written for, if one was set for this row."""
    row = report.get("op"), report.get("dtype"), report.get("peer")
    return KERNEL_GOALS.get(row) if report.get("case") == "reference" else None


def _field(path: Path, report: Mapping[str, Any], column: Column) -> str:
    value: Any = report
    for name in column.field.split("."):
        if not isinstance(value, Mapping) or name not in value:
            raise InputError(f"{path}: a report has no {column.field}; write it anew")
        value = value[name]
    if column.digits is not None:
        return f"{value:.{column.digits}f}"
    return _cell(Path(value).name if column.is_path else value)


def _cells(column: Sequence[Any]) -> list[str]:
    """Show the floats of one column with equally many digits after the point, at most 3."""
    floats = [value for value in column if isinstance(value, float)]
    digits = max((len(f"{value:.3f}".rstrip("0").split(".")[1]) for value in floats), default=0)
    return [f"{value:.{digits}f}" if isinstance(value, float) else _cell(value) for value in column]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return str(value).replace("|", r"\|")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="write the tables of the pages")
    parser.add_argument("--check", action="store_true", help="exit 1 if stale, change nothing")
    parser.add_argument("--readme", type=Path, nargs="+", default=PAGES, metavar="PAGE")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args(argv)
    return max(_renew(page, options.results, check=options.check) for page in options.readme)


def _renew(page: Path, results: Path, *, check: bool) -> int:
    try:
        old = page.read_text("utf-8")
        new = fill_tables(old, results)
    except (OSError, IrstdError) as error:
        print(f"readme_tables: {error}", file=sys.stderr)
        return 1
    if new == old:
        return 0
    if check:
        print(f"readme_tables: {page} is stale; run without --check", file=sys.stderr)
        return 1
    write_atomic(page, new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
