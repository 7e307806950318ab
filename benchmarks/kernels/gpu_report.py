"""The report of `gpu_suite`: rows, nearness to the roofline, and the table for people."""

from dataclasses import asdict, dataclass
from typing import Any

from irstd.benchmarks.kernels.cases import TOLERANCES, Case
from irstd.benchmarks.kernels.gpu_timing import Timing, bandwidth_gb_s
from irstd.benchmarks.text import align, number

OURS = "ours"

Report = dict[str, Any]


@dataclass(frozen=True)
class Timed:
    """All candidates of one case."""

    case: Case
    moved_bytes: int
    timings: dict[str, Timing]
    errors: dict[str, float]  # relative to the largest |reference|
    absent: dict[str, str]  # peers that were not timed, and why

    @property
    def ok(self) -> bool:
        """Whether our result is within the tolerance of the definition."""
        return self.errors[OURS] <= TOLERANCES[self.case.precision]


def rows(timed: Timed) -> list[Report]:
    """Return the rows of `irstd-bench kernels` (interface.md), one for each peer.

    `ours_ms`, `peer_ms` and `ratio` are of cold caches; `ratio_warm` is the other. A case without
    peers has one row whose peer is None.
    """
    case, ours = timed.case, timed.timings[OURS]
    common = {
        "op": case.op,
        "case": case.label,
        "device": "cuda",
        "dtype": case.precision,
        "threads": None,
        "ours_ms": ours.cold.median,
        "max_rel_err": timed.errors[OURS],
    }
    found = [
        {
            **common,
            "peer": name,
            "peer_ms": timing.cold.median,
            "ratio": timing.cold.median / ours.cold.median,
            "ratio_warm": timing.warm.median / ours.warm.median,
            "peer_max_rel_err": timed.errors[name],
        }
        for name, timing in timed.timings.items()
        if name != OURS
    ]
    return found or [{**common, "peer": None, "peer_ms": None, "ratio": None}]


def roofline(timed: Timed, copy_gb_s: float) -> Report:
    """Return how near our kernel comes to the time that its compulsory traffic takes."""
    ours = timed.timings[OURS]
    achieved = bandwidth_gb_s(timed.moved_bytes, ours.cold.median)
    return {
        "op": timed.case.op,
        "case": timed.case.label,
        "dtype": timed.case.precision,
        "bytes": timed.moved_bytes,
        "floor_ms": timed.moved_bytes / (copy_gb_s * 1e6),
        "achieved_gb_s": achieved,
        "fraction": achieved / copy_gb_s,
        "cold_ms": asdict(ours.cold),
        "warm_ms": asdict(ours.warm),
        "absent": timed.absent,
    }


def table(body: Report) -> str:
    """Return the report for people: short enough for the end of a log."""
    device = body["device"]
    lines = [f"{device['name']}, compute capability {device['compute_capability']}"]
    checks = body["checks"]
    lines.append(f"{sum(one['ok'] for one in checks)} of {len(checks)} checks passed")
    lines += [f"  FAILED {name}" for name in body["failed"]]
    for tool, verdict in body.get("sanitizer", {}).items():
        lines.append(f"compute-sanitizer {tool}: {verdict}")
    if "roofline" not in body:
        return "\n".join(lines)
    lines.append(f"copy: {number(body['copy']['gb_s'])} GB/s; times in us, cold cache and warm")
    cells = [("", "cold", "warm", "GB/s", "of copy", "peers: times as long")]
    for entry in body["roofline"]:
        same = [entry[key] for key in ("op", "case", "dtype")]
        ratios = [
            f"{row['peer']} {row['ratio']:.2f}"
            for row in body["results"]
            if row["peer"] and [row["op"], row["case"], row["dtype"]] == same
        ]
        cells.append(
            (
                " ".join(same),
                number(1e3 * entry["cold_ms"]["median"]),
                number(1e3 * entry["warm_ms"]["median"]),
                number(entry["achieved_gb_s"]),
                f"{entry['fraction']:.0%}",
                ", ".join(ratios) or "-",
            )
        )
    lines += align(cells)
    absent = {f"{n}: {why}" for entry in body["roofline"] for n, why in entry["absent"].items()}
    lines += [f"not timed: {line}" for line in sorted(absent)]
    return "\n".join(lines)
