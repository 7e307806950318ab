"""Hold the estimate's method (compile/estimate.py) against layers measured on this CPU.

    python scripts/check_estimate.py --out benchmarks/results/estimate-cpu.json

The same function that estimates boards estimates the core at hand, from its measured peaks, and is
compared layer by layer with OpenVINO's own profile of the same graph, FP32, one thread. Peaks and
layers are measured in turns, so that both see the same machine; of each the best of all rounds
counts (the peak's largest, the layer's smallest), because whatever else runs only slows a machine,
and each round compiles the network anew.
Three numbers that no data sheet has (the sustained share of the peak, what a result costs besides
its products, what a layer costs to start) are fitted on one network and judged on the other, both
ways.
"""

import argparse
import dataclasses
import itertools
import math
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from irstd.benchmarks.kernels.roofline import Roofline, measure_roofline
from irstd.cli import to_json
from irstd.compile.estimate import Machine, estimate_layer
from irstd.compile.estimate_layers import Layer, graph_cost
from irstd.compile.estimate_source import open_subject
from irstd.errors import BenchmarkInvalid, DeviceError, IrstdError
from irstd.files import write_atomic
from irstd.fingerprint import read_environment
from irstd.targets import find_target
from irstd.types import Precision

NETWORKS = ("acm", "alcnet")
MEDIAN_GOAL, TOTAL_GOAL = 0.30, 0.20
INFERENCES = 25  # of each network in a round
NEAR_BYTES = 1 << 20  # a copy of this much stays in the caches, as the networks' values do
SUSTAINED = [share / 100 for share in range(60, 101, 5)]
IDLE_PRODUCTS = range(0, 129, 8)
OVERHEAD_US = range(0, 21, 2)


@dataclasses.dataclass
class Profile:
    """One network in OpenVINO, profiling itself.

    Attributes:
        model: Serialized, as the CPU target deploys it.
        layers: As predicted.
        names: Of executed layers, those of the graph's nodes that each computes.
        best_us: Smallest time seen of each executed layer, microseconds.
    """

    model: bytes
    layers: tuple[Layer, ...]
    names: dict[str, set[str]] = dataclasses.field(default_factory=dict)
    best_us: dict[str, float] = dataclasses.field(default_factory=dict)

    def run(self, core: Any) -> None:
        """Compile anew, infer, and keep the smallest times.

        Anew, because where buffers happen to lie doubles the time of single layers.
        """
        options = {
            "PERF_COUNT": True, "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32",
        }  # fmt: skip
        compiled = core.compile_model(core.read_model(self.model), "CPU", options)
        keys = self._learn_names(compiled)
        image = np.random.default_rng(0).normal(size=tuple(compiled.input(0).shape))
        request = compiled.create_infer_request()
        for _ in range(INFERENCES):
            request.infer({0: image.astype(np.float32)})
            for info in request.profiling_info:
                taken_us = info.real_time.total_seconds() * 1e6
                if taken_us > 0:  # a layer fused into another has none
                    key = keys.get(info.node_name, info.node_name)
                    self.best_us[key] = min(self.best_us.get(key, math.inf), taken_us)

    def _learn_names(self, compiled: Any) -> dict[str, str]:
        """Return lasting names of executed layers: made-up ones are numbered anew each time."""
        ours = {name for layer in self.layers for name in layer.nodes}
        keys: dict[str, str] = {}
        seen: Counter[str] = Counter()
        for node in compiled.get_runtime_model().get_ordered_ops():
            facts, own = node.get_rt_info(), node.get_friendly_name()
            told = (
                facts["originalLayersNames"].astype(str) if "originalLayersNames" in facts else ""
            )
            # A convolution with a bias is two of OpenVINO's nodes.
            computed = {name.removesuffix("/WithoutBiases") for name in [own, *told.split(",")]}
            known = sorted(computed & ours)
            stem = known[0] if known else re.sub(r"_\d+$", "", own)
            seen[stem] += 1
            keys[own] = f"{stem} {seen[stem]}"
            self.names[keys[own]] = computed
        return keys


def open_profile(network: str) -> Profile:
    """Return the graph that the CPU target deploys."""
    subject = open_subject(network, find_target("cpu"), Precision.FP32)
    model = subject.graphs[Precision.FP32]
    return Profile(model.SerializeToString(), graph_cost(model).layers)


def measured_layers(profile: Profile) -> list[tuple[Layer, float]]:
    """Pair each predicted layer with what OpenVINO measured, microseconds.

    Raises:
        BenchmarkInvalid: OpenVINO executed other layers than predicted.
    """
    executed = dict(profile.best_us)
    found: dict[int, float] = {}
    for index, layer in enumerate(profile.layers):
        for name in list(executed):
            if profile.names.get(name, set()) & set(layer.nodes):
                found[index] = found.get(index, 0.0) + executed.pop(name)
    # OpenVINO forgets the names of a few nodes that it rewrites; they keep their order.
    lost = [index for index in range(len(profile.layers)) if index not in found]
    left = {name: taken for name, taken in executed.items() if "_acdb_" not in name}
    if len(lost) != len(left):
        missing = ", ".join(profile.layers[index].name for index in lost)
        raise BenchmarkInvalid(
            f"OpenVINO executes other layers than predicted: {missing or 'none'} against "
            f"{', '.join(left) or 'none'}"
        )
    found.update(zip(lost, left.values(), strict=True))
    return [(layer, found[index]) for index, layer in enumerate(profile.layers)]


def copy_gb_s() -> float:
    """Return 10^9 bytes read and written a second by a copy within the caches."""
    source = np.ones(NEAR_BYTES // 2, np.uint8)
    target = np.zeros_like(source)
    best = 0.0
    for _ in range(50):
        started = time.perf_counter()
        np.copyto(target, source)
        best = max(best, NEAR_BYTES / (time.perf_counter() - started) / 1e9)
    return best


def measure(seconds: float) -> tuple[Roofline, float, dict[str, Profile], int]:
    """Measure peaks and layers in turns."""
    import openvino

    core = openvino.Core()
    profiles = {network: open_profile(network) for network in NETWORKS}
    peaks = measure_roofline()
    near, rounds, end = copy_gb_s(), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for profile in profiles.values():
            profile.run(core)
        new = measure_roofline()
        peaks = Roofline(
            max(peaks.float_gmac_s or 0.0, new.float_gmac_s or 0.0) or None,
            peaks.int8_gmac_s,
            max(peaks.copy_gb_s, new.copy_gb_s),
        )
        near, rounds = max(near, copy_gb_s()), rounds + 1
    return peaks, near, profiles, rounds


def machine(peaks: Roofline, near_gb_s: float, lanes: int, fitted: Mapping[str, float]) -> Machine:
    """Return this core as a machine, with what `fit` found; without it, the bare roofline."""
    if peaks.float_gmac_s is None:
        raise DeviceError("this CPU has none of the multiply-add instructions that are timed")
    return Machine(
        name="one core",
        macs_per_s={"fp32": peaks.float_gmac_s * 1e9},
        operations_per_s=peaks.float_gmac_s * 1e9,
        bandwidth=peaks.copy_gb_s * 1e9,
        vectors={"fp32": (1, lanes)},
        cache_bytes=1 << 30,  # of these networks everything stays near
        cache_bandwidth=near_gb_s * 1e9,
        overhead_s=fitted.get("overhead_us", 0.0) * 1e-6,
        idle_products=fitted.get("idle_products", 0.0),
        sustained=fitted.get("sustained", 1.0),
    )


def errors(rows: Sequence[tuple[Layer, float]], core: Machine) -> tuple[list[float], float]:
    """Return the relative error of each layer and of the total."""
    estimated = [1e6 * estimate_layer(layer, core).seconds for layer, _ in rows]
    single = [guess / taken - 1 for guess, (_, taken) in zip(estimated, rows, strict=True)]
    return single, sum(estimated) / sum(taken for _, taken in rows) - 1


def fit(
    rows: Sequence[tuple[Layer, float]], peaks: tuple[Roofline, float, int]
) -> dict[str, float]:
    """Return the three numbers with the smallest mean logarithmic error, of a coarse grid."""

    def loss(values: tuple[float, float, float]) -> float:
        core = machine(*peaks, dict(zip(names, values, strict=True)))
        return statistics.fmean(
            abs(math.log(1e6 * estimate_layer(layer, core).seconds / taken))
            for layer, taken in rows
        )

    names = ("sustained", "idle_products", "overhead_us")
    best = min(itertools.product(SUSTAINED, IDLE_PRODUCTS, OVERHEAD_US), key=loss)
    return {name: float(value) for name, value in zip(names, best, strict=True)}


def judge(
    measured: Mapping[str, Sequence[tuple[Layer, float]]], peaks: tuple[Roofline, float, int]
) -> list[dict[str, Any]]:
    """Fit on each network and judge on the other; the bare roofline beside it."""
    results = []
    for fitted_on, judged_on in (NETWORKS, NETWORKS[::-1]):
        fitted = fit(measured[fitted_on], peaks)
        single, total = errors(measured[judged_on], machine(*peaks, fitted))
        bare, bare_total = errors(measured[judged_on], machine(*peaks, {}))
        median = statistics.median(map(abs, single))
        results.append(
            {
                "fitted_on": fitted_on,
                "judged_on": judged_on,
                **(fitted or {}),
                "layer_count": len(single),
                "median_error": median,
                "total_error": total,
                "worst_error": max(single, key=abs),
                "bare_roofline_median_error": statistics.median(map(abs, bare)),
                "bare_roofline_total_error": bare_total,
                "goal_met": median <= MEDIAN_GOAL and abs(total) <= TOTAL_GOAL,
                "layers": [
                    {"name": layer.name, "kind": layer.kind, "measured_us": taken,
                     "estimated_us": taken * (1 + error)}
                    for (layer, taken), error in zip(measured[judged_on], single, strict=True)
                ],
            }
        )  # fmt: skip
    return results


def _cell(value: Any) -> Any:
    return round(100 * value, 1) if isinstance(value, float) else value


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="to measure (default: 60)")
    parser.add_argument("--out", type=Path, help="report to write, JSON")
    options = parser.parse_args(argv)
    environment = read_environment()
    flags = environment.cpu_flags
    lanes = 16 if "avx512f" in flags else 8 if "avx2" in flags else 4
    try:
        roofline, near, profiles, rounds = measure(options.seconds)
        peaks = roofline, near, lanes
        measured = {network: measured_layers(profile) for network, profile in profiles.items()}
        results = judge(measured, peaks)
    except IrstdError as error:
        print(f"check_estimate: {error}", file=sys.stderr)
        return error.exit_code
    columns = {
        "fitted_on": "Fitted on", "judged_on": "Judged on", "layer_count": "Layers",
        "median_error": "Median error of a layer %", "total_error": "Error of the total %",
        "bare_roofline_median_error": "Bare roofline: layer %",
        "bare_roofline_total_error": "total %",
    }  # fmt: skip
    report = {
        "schema_version": 1,
        "kind": "estimate-check",
        "command": "python scripts/check_estimate.py --out benchmarks/results/estimate-cpu.json",
        "method": "one thread, best of all rounds, peaks and layers in turns; error of the "
        "estimate relative to OpenVINO's profile of each layer; measured on one core of "
        f"{environment.cpu_model}, shared with other work",
        "goals": {"median_error": MEDIAN_GOAL, "total_error": TOTAL_GOAL},
        "rounds": rounds,
        "inferences": rounds * INFERENCES,
        "peaks": {**dataclasses.asdict(roofline), "near_copy_gb_s": near, "vector_floats": lanes},
        "columns": list(columns.values()),
        "rows": [[_cell(row[key]) for key in columns] for row in results],
        "results": results,
        "environment": environment.to_dict(),
    }
    for row in results:
        print(
            f"fitted on {row['fitted_on']}, judged on {row['judged_on']}: median error of a layer "
            f"{100 * row['median_error']:.1f} %, of the total {100 * row['total_error']:+.1f} % "
            f"(bare roofline {100 * row['bare_roofline_median_error']:.1f} %, "
            f"{100 * row['bare_roofline_total_error']:+.1f} %): "
            f"{'goal met' if row['goal_met'] else 'GOAL MISSED'}"
        )
    if options.out:
        write_atomic(options.out, to_json(report) + "\n")
    return 0 if all(row["goal_met"] for row in results) else BenchmarkInvalid.exit_code


if __name__ == "__main__":
    sys.exit(main())
