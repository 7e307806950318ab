"""Reports for people who read a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

DEVELOPMENT_NOTE = "CPU figures are development numbers: keep them out of tables of device figures."


def align(rows: Sequence[Sequence[str]], indent: str = "  ") -> list[str]:
    """Return lines with the first column flush left and the others flush right.

    Args:
        rows: All of one length, strings without line breaks.
        indent: In front of each line.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        indent
        + "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def number(value: Any, digits: int = 4) -> str:
    """Return a number with `digits` significant digits, an integer in full, a dash for None."""
    if value is None:
        return "-"
    if isinstance(value, int) or abs(value) >= 10**digits:
        return f"{value:.0f}"
    return f"{value:#.{digits}g}".rstrip(".")


def title(report: Mapping[str, Any]) -> str:
    """Return what was measured on what, in one line."""
    shape = "x".join(map(str, report["input_shape"][1:]))
    threads = report["threads"]
    count = "the engine's own threads" if threads is None else f"{threads} threads"
    used = "1 thread" if threads == 1 else count
    name = f"{report['network']} {report['precision']} {shape}"
    return f"{name} on {report['engine']}, {used}"


def latency_text(report: Mapping[str, Any]) -> str:
    """Return the text of a latency report."""
    return "\n".join(_latency_lines(report))


def paced_text(report: Mapping[str, Any]) -> str:
    """Return the text of a paced report."""
    return "\n".join(_paced_lines(report))


def accuracy_text(report: Mapping[str, Any]) -> str:
    """Return the text of an accuracy report."""
    names = ("iou", "niou", "pd", "fa", "hse_p", "hse_t", "hse")
    heads = ("IoU %", "nIoU %", "Pd %", "Fa 1e-6", "HSE-P %", "HSE-T %", "HSE %")
    lines = [
        title(report),
        f"{report['data']}: {report['frames']} frames, {report['targets']} targets, threshold "
        f"{report['threshold']:g}",
        *align([("", *heads), ("", *(number(report[name]) for name in names))], indent=""),
    ]
    return "\n".join(lines)


def _latency_lines(report: Mapping[str, Any]) -> Iterator[str]:
    yield title(report)
    yield f"{report['footage']['description']}; {report['frames']} in {report['seconds']:.1f} s"
    yield from _percentile_lines(report)
    yield (
        f"  {report['throughput_fps']:.1f} frames/s on average, {report['guaranteed_fps']:.1f} at "
        "the 99th percentile"
    )
    if other := report.get("against"):
        ratio = other["ratio"]
        yield f"against {title(other)}, in turns:"
        yield (
            f"  it takes {ratio['p50']:.3f} times as long (95 %: {ratio['low']:.3f} to "
            f"{ratio['high']:.3f}), {number(other['latency_ms']['p50'])} ms at p50"
        )
        for reason in other["validity"]["reasons"]:
            yield f"  - {reason}"
    yield from _verdict_lines(report)


def _paced_lines(report: Mapping[str, Any]) -> Iterator[str]:
    yield f"{title(report)}, paced at {report['rate_hz']:g} frames/s ({report['policy']})"
    yield f"{report['footage']['description']}; {report['frames']} in {report['seconds']:.1f} s"
    yield (
        f"  {report['delivered']} delivered, {report['late']} late, {report['dropped']} dropped "
        f"({report['miss_share']:.3%} missed), at most {report['longest_miss_run']} missed in a row"
    )
    yield (
        f"  deadline {number(report['deadline_ms'])} ms, latest output "
        f"{number(report['max_late_ms'])} ms after it; jitter std "
        f"{number(report['jitter_ms']['std'])} ms, p99 {number(report['jitter_ms']['p99'])} ms"
    )
    yield from _percentile_lines(report)
    yield from _verdict_lines(report)


def _percentile_lines(report: Mapping[str, Any]) -> Iterator[str]:
    latency = report["latency_ms"]
    names = ("p50", "p90", "p95", "p99", "p99_9", "max", "mean", "std")
    heads = [name.replace("_", ".") for name in names]
    yield from align([("ms", *heads), ("latency", *(number(latency[name]) for name in names))])
    bounds = report["p99_interval_ms"]
    indicative = ", indicative" if report["p99_indicative"] else ""
    yield (
        f"  p99 is within {number(bounds['low'])} to {number(bounds['high'])} ms with 95 % "
        f"confidence{indicative}; first frame {number(report['first_frame_ms'])} ms"
    )
    stages = report["stages_ms"]
    shares = ""
    if "outside_engine_share" in report:
        shares = (
            f"; {report['outside_engine_share']:.1%} outside the engine, "
            f"{report['unaccounted_share']:.1%} unaccounted for"
        )
    named = ", ".join(f"{name} {number(value)}" for name, value in stages.items())
    yield f"  median ms of stages: {named}{shares}"


def _verdict_lines(report: Mapping[str, Any]) -> Iterator[str]:
    validity = report["validity"]
    stable = "stable" if validity["ok"] else "NOT STABLE"
    yield f"{stable}, {'' if validity['publishable'] else 'not '}publishable"
    for reason in validity["reasons"]:
        yield f"  - {reason}"
    for warning in validity["warnings"]:
        yield f"  note: {warning}"
    if report["numbers"] == "development":
        yield f"  note: {DEVELOPMENT_NOTE}"
