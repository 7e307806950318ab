"""Builds, checks and times every fused kernel on a CUDA machine, in one call.

    python -m irstd.benchmarks.kernels.gpu_suite [--out benchmarks/results] [--rounds N]
        [--checks-only] [--sanitizer] [--original-source FOLDER]

Every operator is compiled, compared with its definition over a sweep of shapes, and timed in turns
with its peers (gpu_peers.py) and beside a copy of 256 MiB, whose bandwidth gives the roofline: the
time to read all inputs and write all results once. Writes one JSON into --out and prints a table.
--sanitizer runs the checks once more under compute-sanitizer: memcheck, racecheck and initcheck.
"""

import argparse
import datetime
import json
import logging
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from irstd.benchmarks.kernels.cases import (
    OPERATORS,
    Array,
    Case,
    Check,
    check,
    check_cases,
    compulsory_bytes,
    make_inputs,
    timed_cases,
)
from irstd.benchmarks.kernels.gpu_peers import Candidate, Maker, TorchPeers
from irstd.benchmarks.kernels.gpu_report import OURS, Report, Timed, roofline, rows, table
from irstd.benchmarks.kernels.gpu_sanitizer import sanitize
from irstd.benchmarks.kernels.gpu_timing import ROUNDS, Gpu, Run, bandwidth_gb_s, time_in_turns
from irstd.errors import BuildError, IrstdError, MissingDependency, ParityFailed, UsageError
from irstd.files import check_writable, to_path, write_atomic
from irstd.fingerprint import environment
from irstd.version import __version__

SCHEMA_VERSION = 1
COPY_BYTES = 256 << 20
SEED = 0

_log = logging.getLogger(__name__)


class Machine(Gpu, Protocol):
    """A GPU with our kernels; gpu_machine.py has the real one."""

    stream: int

    def facts(self) -> Report:
        """Return name, compute capability, memory, cache and versions."""
        ...

    def prepare(self, op: str) -> Report:
        """Compile and load an operator; return which compiled form the device takes."""
        ...

    def candidate(self, case: Case, arrays: Mapping[str, Array]) -> Candidate:
        """Return our kernel for a case."""
        ...

    def copy(self, nbytes: int) -> Run:
        """Return a kernel that copies that many bytes."""
        ...


class Peers(Protocol):
    """Others that have some of the operators; gpu_peers.py has them."""

    versions: dict[str, str]

    def makers(self, case: Case) -> Iterator[tuple[str, Maker]]:
        """Yield the name and the maker of each peer of a case."""
        ...


def check_case(machine: Machine, case: Case) -> Check:
    """Compare our kernel with the definition."""
    arrays = make_inputs(case, np.random.default_rng(SEED))
    candidate = machine.candidate(case, arrays)
    candidate.run()
    return check(case, arrays, candidate.result())


def time_case(machine: Machine, peers: Peers | None, case: Case, rounds: int) -> Timed:
    """Time our kernel and each peer that can be had, in turns, and check every result.

    A peer in half precision may round where ours does not: it is timed whatever its error is, which
    the report gives.
    """
    arrays = make_inputs(case, np.random.default_rng(SEED))
    ours = machine.candidate(case, arrays)
    candidates = {OURS: ours}
    absent: dict[str, str] = {}
    for name, make in peers.makers(case) if peers else ():
        try:
            candidates[name] = make(case, arrays)
            candidates[name].run()
            candidates[name].result()
        except (MissingDependency, BuildError, RuntimeError) as error:
            candidates.pop(name, None)
            absent[name] = str(error).splitlines()[0] if str(error) else type(error).__name__
    timings = time_in_turns(machine, {name: c.run for name, c in candidates.items()}, rounds)
    results = {name: candidate.result() for name, candidate in candidates.items()}
    errors = {name: check(case, arrays, result).error for name, result in results.items()}
    return Timed(case, compulsory_bytes(arrays, results[OURS]), timings, errors, absent)


def measure_copy(machine: Machine, rounds: int) -> float:
    """Return the bandwidth in GB/s, bytes read plus bytes written, of a copy kernel."""
    copy = machine.copy(COPY_BYTES)
    timing = time_in_turns(machine, {"copy": copy}, rounds)["copy"]
    return bandwidth_gb_s(2 * COPY_BYTES, timing.cold.median)


def run_suite(
    machine: Machine,
    peers: Peers | None,
    *,
    checks: Sequence[Case],
    timed: Sequence[Case],
    rounds: int = ROUNDS,
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Build, check and time; return the body of the report."""
    built = {}
    outcome = []
    for op in dict.fromkeys(case.op for case in [*checks, *timed]):
        built[op] = machine.prepare(op)
    for case in checks:
        say(f"checking {case.name}")
        outcome.append(check_case(machine, case))
    body: Report = {
        "device": machine.facts(),
        "built": built,
        "checks": [
            {"case": c.case.name, "error": c.error, "tolerance": c.tolerance, "ok": c.ok}
            for c in outcome
        ],
        "failed": [c.case.name for c in outcome if not c.ok],
    }
    if not timed:
        return body
    copy_gb_s = measure_copy(machine, rounds)
    measured = []
    for case in timed:
        say(f"timing {case.name}")
        measured.append(time_case(machine, peers, case, rounds))
    body["failed"] += [one.case.name for one in measured if not one.ok]
    body["peers"] = peers.versions if peers else {}
    body["copy"] = {"bytes": COPY_BYTES, "gb_s": copy_gb_s}
    body["results"] = [row for one in measured for row in rows(one)]
    body["roofline"] = [roofline(one, copy_gb_s) for one in measured]
    return body


def kernels_report(
    op: str | None, threads: int, between: Callable[[float], None] = lambda _: None
) -> Report:
    """Return the fields of `irstd-bench kernels --device cuda` (interface.md), and the checks.

    Args:
        op: One operator; None for all.
        threads: Without effect.
        between: Told how much is done, in percent.

    Raises:
        UsageError: The operator has no form on a GPU.
        MissingDependency: No compiler, or no package that reaches the driver.
        DeviceError: No GPU.
    """
    del threads
    if op not in (None, *OPERATORS):
        raise UsageError(f"--op {op}: not on a GPU; wanted one of {', '.join(OPERATORS)}")
    from irstd.benchmarks.kernels.gpu_machine import CudaMachine

    between(0)
    machine = CudaMachine()
    checks, timed = (
        [case for case in cases if op in (None, case.op)]
        for cases in (check_cases(), timed_cases())
    )
    done = iter(range(1, len(checks) + len(timed) + 1))
    return run_suite(
        machine,
        _torch_peers(machine, None),
        checks=checks,
        timed=timed,
        say=lambda _: between(100 * next(done) / (len(checks) + len(timed))),
    )


kernels_text = table


def main(argv: Sequence[str] | None = None) -> int:
    """Run the suite; the exit code is 0, or the one that sdk/errors.py gives."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _main(_parse(words), words)
    except IrstdError as error:
        print(f"gpu_suite: {error}", file=sys.stderr)
        return error.exit_code


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu_suite", description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="benchmarks/results", help="folder of the JSON")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of each timing")
    parser.add_argument("--checks-only", action="store_true", help="time nothing, write nothing")
    parser.add_argument("--sanitizer", action="store_true", help="check under compute-sanitizer")
    parser.add_argument("--original-source", type=to_path, help="sources of the original kernel")
    options = parser.parse_args(words)
    if options.rounds < 1:
        raise UsageError(f"--rounds {options.rounds}: wanted 1 or more")
    return options


def _main(options: argparse.Namespace, words: Sequence[str]) -> int:
    from irstd.benchmarks.kernels.gpu_machine import CudaMachine

    machine = CudaMachine()
    name = re.sub(r"[^a-z0-9]+", "-", machine.facts()["name"].lower()).strip("-")
    path = to_path(options.out) / f"gpu-{name}.json"
    check_writable(path)
    body = run_suite(
        machine,
        None if options.checks_only else _torch_peers(machine, options.original_source),
        checks=list(check_cases()),
        timed=[] if options.checks_only else list(timed_cases()),
        rounds=options.rounds,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    if options.sanitizer:
        body["sanitizer"] = sanitize([sys.executable, "-m", __spec__.name, "--checks-only"])
    if not options.checks_only:
        write_atomic(path, _json(body, words))
    print(table(body))
    found = any(said != "clean" for said in body.get("sanitizer", {}).values())
    return ParityFailed.exit_code if body["failed"] or found else 0


def _torch_peers(machine: Machine, original_source: Path | None) -> TorchPeers | None:
    try:
        return TorchPeers(machine.stream, original_source)
    except MissingDependency as error:
        _log.warning("no peers: %s", error)
        return None


def _json(body: Report, words: Sequence[str]) -> str:
    report = {
        "schema_version": SCHEMA_VERSION,
        "kind": "kernels",
        "tool": {"name": "gpu_suite", "version": __version__},
        "command": shlex.join(["python", "-m", "irstd.benchmarks.kernels.gpu_suite", *words]),
        "started_at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "environment": environment(),
        **body,
    }
    return json.dumps(report, indent=1) + "\n"


if __name__ == "__main__":
    sys.exit(main())
