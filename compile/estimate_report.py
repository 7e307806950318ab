"""The estimates of a source or bundle for boards and cards, as a report and for people.

An estimate is the roofline's; TensorRT on a board takes longer. By how much is known from public
measurements of other networks on a Jetson Orin Nano, each against the estimate of the same graph
(scripts/check_estimate_public.py, benchmarks/results/estimate-public.json): their range is
`LIKELY`, and the verdict on a frame rate rests on it. None of them takes less than 3 ms; of shorter
times little is known but that they do not get shorter than the estimate.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from onnx import ModelProto

from irstd.compile.dla import NOTE as DLA_NOTE
from irstd.compile.dla import DlaReport, dla_report
from irstd.compile.estimate import Estimate, LayerEstimate, estimate_cost, machine_of
from irstd.compile.estimate_layers import Cost, graph_cost
from irstd.compile.estimate_source import open_subject
from irstd.devices import Device
from irstd.errors import UsageError
from irstd.targets import TARGETS, Target, find_target
from irstd.types import Precision

ALL = "all"
NOTE = (
    "an estimate from published peaks, not a measurement: estimate_ms is the roofline of each "
    "layer, likely_ms what public TensorRT measurements of other, larger networks make of it, "
    "floor_ms what no engine can go below; pre- and postprocessing are not in it"
)
# Measured by estimated milliseconds: the smallest and the largest of public measurements.
LIKELY: Mapping[str, tuple[float, float]] = {
    "fp32": (1.9, 2.4),
    "fp16": (1.9, 2.4),
    "int8": (3.0, 3.6),
}
MAX_FPS = 100_000.0
_SLOWEST = 5


def estimate_targets() -> list[Target]:
    """Return the targets that there are figures for: all but the CPU, which is measured instead."""
    return [target for target in TARGETS.values() if target.device is not None]


def check_fps(value: Any) -> float:
    """Return a wanted frame rate, Hz.

    Raises:
        UsageError: Not a number above 0, up to MAX_FPS.
    """
    try:
        fps = float(value)
    except (TypeError, ValueError, OverflowError):
        fps = math.nan
    if not 0 < fps <= MAX_FPS:  # False for NaN, too
        raise UsageError(f"--fps {value!r}: wanted frames a second, above 0 and up to {MAX_FPS:g}")
    return fps


def estimate_source(
    source: str,
    target: str | None = None,
    precision: Precision | None = None,
    fps: float | None = None,
    size_hw: tuple[int, int] | None = None,
    power_mode: str | None = None,
) -> dict[str, Any]:
    """Estimate how long one inference takes on boards and cards.

    Args:
        source: Path of an .irstd or .onnx file, or a network's name.
        target: One of TARGETS but a CPU, or "all"; None: the bundle's, or all.
        precision: FP32, FP16 or INT8; None: all three of a source, the one of a bundle.
        fps: Frame rate that is wanted, Hz; None for no verdict.
        size_hw: Input size, px; None: the default.
        power_mode: Of the device; None: its fastest. Goes with one target.

    Returns:
        The JSON values of `irstd-compile estimate --json`. Layers and DLA are in it for one target.

    Raises:
        UsageError: An unknown target or mode, a rate that is none, a CPU.
        ExportError: The graph cannot be read, or its size is not fixed.
        BundleError: The bundle is not sound.
    """
    wanted = None if fps is None else check_fps(fps)
    chosen = None if target in (None, ALL) else _with_device(str(target))
    if power_mode is not None and chosen is None:
        raise UsageError("--power-mode goes with one --target, whose modes it names")
    subject = open_subject(source, chosen or estimate_targets()[0], precision, size_hw)
    if subject.target is not None:
        built_for = _with_device(subject.target)
        chosen = built_for if target is None else chosen
    targets = [chosen] if chosen else estimate_targets()
    rows = []
    costs = {item: graph_cost(model) for item, model in subject.graphs.items()}
    reports = {item: _dla_report(subject.graphs[item], targets) for item in costs}
    for each in targets:
        for item, cost in costs.items():
            row = _row(each, item.value, cost, wanted, power_mode, whole=chosen is not None)
            cores, report = _device(each).dla_cores, reports[item]
            row["dla_mac_share"] = report.mac_share if report and cores else None
            if chosen is not None:
                row["dla"] = _dla(report, cores) if report else None
            rows.append(row)
    return {
        "kind": "estimate",
        "note": NOTE,
        "source": source,
        "network": subject.name,
        "input_hw": list(subject.size_hw),
        "fps": wanted,
        "estimates": rows,
    }


def _with_device(name: str) -> Target:
    target = find_target(name)
    if target.device is None:
        known = ", ".join(item.name for item in estimate_targets())
        raise UsageError(
            f"{name} is measured, not estimated: irstd-bench latency BUNDLE; there are estimates "
            f"for {known}"
        )
    return target


def _row(
    target: Target, precision: str, cost: Cost, fps: float | None, mode: str | None, *, whole: bool
) -> dict[str, Any]:
    device = _device(target)
    power_mode = device.mode(mode)
    found = estimate_cost(cost, machine_of(device, power_mode))
    low, high = (factor * 1e3 * found.seconds for factor in LIKELY[precision])
    row: dict[str, Any] = {
        "target": target.name,
        "device": device.product,
        "power_mode": power_mode.name,
        "precision": precision,
        "estimate_ms": 1e3 * found.seconds,
        "likely_ms": [low, high],
        "floor_ms": 1e3 * found.floor_s,
        "bottleneck": found.bottleneck,
        "shares": found.shares,
        "gmacs": cost.macs / 1e9,
        "unknown_operators": dict(cost.unknown),
        "verdict": None if fps is None else verdict(found, precision, fps),
    }
    if whole:
        row["layers"] = [_layer(layer) for layer in found.layers]
    return row


def _device(target: Target) -> Device:
    if target.device is None:
        raise UsageError(f"{target.name} has no published figures")
    return target.device


def verdict(found: Estimate, precision: str, fps: float) -> dict[str, Any]:
    """Say whether a frame rate is out of reach, by an estimate.

    Args:
        found: The estimate.
        precision: Key of LIKELY.
        fps: Wanted, Hz.
    """
    period_ms, estimate_ms = 1e3 / fps, 1e3 * found.seconds
    low, high = LIKELY[precision]
    if period_ms < 1e3 * found.floor_s:
        state, why = "out of reach", "not even the peaks of the device allow it"
    elif period_ms < low * estimate_ms:
        state, why = "unlikely", "no public measurement came so close to its estimate"
    elif period_ms < high * estimate_ms:
        state, why = "doubtful", "public measurements lie on both sides of it"
    else:
        state, why = "within reach", "by the estimate; measure it on the device"
    if found.unknown and state in ("doubtful", "within reach"):
        state, why = "doubtful", "operators that the model does not know are counted too low"
    return {"fps": fps, "period_ms": period_ms, "state": state, "why": why}


def _layer(row: LayerEstimate) -> dict[str, Any]:
    layer = row.layer
    return {
        "name": layer.name,
        "operators": list(layer.operators),
        "precision": layer.precision,
        "macs": layer.macs,
        "bytes": layer.moved_bytes,
        "estimate_us": 1e6 * row.seconds,
        "bottleneck": row.bottleneck,
        "usable_share": row.usable,
    }


def _dla_report(model: ModelProto, targets: Sequence[Target]) -> DlaReport | None:
    """Return what DLA could run, if any of the targets has one: the rules are the same for all."""
    device = next((_device(item) for item in targets if _device(item).dla_cores), None)
    return dla_report(model, device) if device else None


def _dla(report: DlaReport, cores: int) -> dict[str, Any]:
    return {
        "note": DLA_NOTE,
        "cores": cores,
        "operators": len(report.nodes),
        "operators_on_dla": sum(node.fits for node in report.nodes),
        "mac_share": report.mac_share,
        "loadables": report.loadables,
        "fits_loadables": report.fits_loadables,
        "on_gpu": [
            {"name": node.name, "operator": node.operator, "reason": node.reason}
            for node in report.nodes
            if not node.fits
        ],
    }


def describe_estimates(report: Mapping[str, Any]) -> str:
    """Return a report of `estimate_source` as lines for people."""
    height, width = report["input_hw"]
    rows: Sequence[Mapping[str, Any]] = report["estimates"]
    lines = [
        f"ESTIMATE, not a measurement: {report['network']} at {height}x{width}",
        f"{'target':21} {'mode':10} {'precision':9} {'estimate ms':>11} {'likely ms':>13} "
        f"{'floor ms':>8}  slowed by",
    ]
    for row in rows:
        low, high = row["likely_ms"]
        likely = f"{low:.2f} to {high:.2f}"
        lines.append(
            f"{row['target']:21} {row['power_mode']:10} {row['precision']:9} "
            f"{row['estimate_ms']:11.3f} {likely:>13} {row['floor_ms']:8.3f}  {row['bottleneck']}"
            + _verdict_text(row["verdict"])
        )
    for row in rows:
        if "layers" in row:
            lines += _detail_lines(row)
    unknown = rows[0]["unknown_operators"] if rows else {}
    if unknown:
        counted = ", ".join(f"{count} {name}" for name, count in unknown.items())
        lines.append(f"the estimate is too low: only the bytes of {counted} are counted")
    lines.append(f"estimate: {report['note'].removeprefix('an estimate ')}")
    return "\n".join(lines)


def _verdict_text(found: Mapping[str, Any] | None) -> str:
    return f"; {found['fps']:g} fps: {found['state']}" if found else ""


def _detail_lines(row: Mapping[str, Any]) -> list[str]:
    slowest = sorted(row["layers"], key=lambda layer: -layer["estimate_us"])[:_SLOWEST]
    lines = [f"{row['precision']}: slowest of {len(row['layers'])} layers, estimate:"]
    lines += [
        f"  {layer['estimate_us']:8.1f} us  {'+'.join(layer['operators'])} {layer['name']}: "
        f"{layer['bottleneck']}, {100 * layer['usable_share']:.0f} % of the peak usable"
        for layer in slowest
    ]
    if dla := row.get("dla"):
        reasons = {f"{item['operator']}: {item['reason']}" for item in dla["on_gpu"]}
        lines.append(
            f"  DLA ({dla['cores']} cores) could run {dla['operators_on_dla']} of "
            f"{dla['operators']} operators, {100 * dla['mac_share']:.0f} % of the products, in "
            f"{dla['loadables']} pieces; {dla['note']}"
        )
        lines += [f"    on the GPU: {reason}" for reason in sorted(reasons)]
    return lines
