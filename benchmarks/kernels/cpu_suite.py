"""Times the CPU kernels and their peers in turns, beside the roofline of the core."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from irstd.benchmarks.kernels.cpu_case import OURS, CpuCase
from irstd.benchmarks.kernels.cpu_cases import cpu_cases
from irstd.benchmarks.kernels.cpu_peers import Run
from irstd.benchmarks.kernels.roofline import Roofline, measure_roofline
from irstd.benchmarks.text import align, number

ROUNDS = 15
WARM_UP_ROUNDS = 2
METHOD = (
    "arrays on cache lines; "
    f"candidates in turns, {WARM_UP_ROUNDS} rounds to warm up, median of {ROUNDS}; "
    "ratio = median of the peer / median of ours"
)


@dataclasses.dataclass(frozen=True)
class Timed:
    """One case, ours and a peer.

    Attributes:
        ours_ms: Median.
        peer_ms: Median; None with `peer` where there is no peer.
        max_rel_err: Of our result, relative to the largest value of the definition.
        peer_max_rel_err: Likewise of the peer's.
    """

    op: str
    case: str
    dtype: str
    ours_ms: float
    peer: str | None
    peer_ms: float | None
    max_rel_err: float
    peer_max_rel_err: float | None


def measure(
    cases: Sequence[CpuCase],
    threads: int,
    rounds: int = ROUNDS,
    between: Callable[[float], None] = lambda _: None,
) -> list[Timed]:
    """Time every case and compare every result with the definition.

    Args:
        cases: What to time.
        threads: That each call may use.
        rounds: That count; some more go before.
        between: Told how much is done, in percent.
    """
    found = []
    for index, case in enumerate(cases):
        between(100 * index / len(cases))
        runs = dict(case.prepare(threads))
        times_ms = time_in_turns(runs, rounds)
        errors = {name: case.error(np.array(run())) for name, run in runs.items()}
        ours_ms, ours_error = times_ms.pop(OURS), errors[OURS]
        rows: list[tuple[str | None, float | None, float | None]] = [
            (name, peer_ms, errors[name]) for name, peer_ms in times_ms.items()
        ]
        found += [
            Timed(case.op, case.label, case.dtype, ours_ms, peer, peer_ms, ours_error, error)
            for peer, peer_ms, error in rows or [(None, None, None)]
        ]
    return found


def time_in_turns(runs: Mapping[str, Run], rounds: int = ROUNDS) -> dict[str, float]:
    """Return the median time of each in ms; in turns, so that noise meets all of them alike."""
    times_ms: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(-WARM_UP_ROUNDS, rounds):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if turn >= 0:
                times_ms[name].append(1e3 * (time.perf_counter() - started))
    return {name: statistics.median(times) for name, times in times_ms.items()}


def kernels_report(
    op: str | None, threads: int, between: Callable[[float], None] = lambda _: None
) -> dict[str, Any]:
    """Return the fields of `irstd-bench kernels --device cpu` (interface.md).

    Args:
        op: One operator; None for all.
        threads: That each call may use.
        between: Told how much is done, in percent.
    """
    between(0)
    roofline = measure_roofline()
    timed = measure(list(cpu_cases(op)), threads, between=between)
    return {
        "method": METHOD,
        "threads": threads,
        "roofline": dataclasses.asdict(roofline),
        "results": [_row(one, threads) for one in timed],
    }


def _row(timed: Timed, threads: int) -> dict[str, Any]:
    ratio = None if timed.peer_ms is None else timed.peer_ms / timed.ours_ms
    place = {"device": "cpu", "threads": threads, "ratio": ratio}
    return dataclasses.asdict(timed) | place


def kernels_text(report: Mapping[str, Any]) -> str:
    """Return the report for people."""
    cells = [("", "ours ms", "peer", "peer ms", "ratio", "error", "peer's")]
    cells += [
        (
            f"{row['op']} {row['case']} {row['dtype']}",
            number(row["ours_ms"]),
            row["peer"] or "-",
            number(row["peer_ms"]),
            "-" if row["ratio"] is None else f"{row['ratio']:.1f}",
            f"{row['max_rel_err']:.1e}",
            "-" if row["peer_max_rel_err"] is None else f"{row['peer_max_rel_err']:.1e}",
        )
        for row in report["results"]
    ]
    peaks = Roofline(**report["roofline"])
    cpu = report["environment"]["cpu_model"]
    lines = [
        f"{cpu}, {report['threads']} threads; a core of it at most "
        f"{number(peaks.float_gmac_s)} GMAC/s float32, {number(peaks.int8_gmac_s)} int8, "
        f"{number(peaks.copy_gb_s)} GB/s copied",
        *align(cells),
        report["method"],
    ]
    return "\n".join(lines)
