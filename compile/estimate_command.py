"""The verbs `irstd-compile estimate` and `irstd-compile targets`."""

import argparse
import dataclasses
from typing import Any

from irstd.cli import Outcome, add_verb
from irstd.jetpack import JETPACKS
from irstd.targets import TARGETS, Target
from irstd.types import Precision


def add_estimate(verbs: Any) -> None:
    """Add the verb `estimate` to a parser's verbs."""
    text = "Estimate the time of one inference on boards and cards that are not at hand."
    verb = add_verb(verbs, "estimate", _estimate, text)
    verb.add_argument(
        "source", metavar="SOURCE", help="network name, .onnx file, or bundle (.irstd)"
    )
    verb.add_argument(
        "--target", metavar="T", help="a GPU target or all (default: the bundle's, else all)"
    )
    precisions = [item.value for item in Precision]
    verb.add_argument(
        "--precision",
        metavar="P",
        choices=precisions,
        help=f"one of {', '.join(precisions)} (default: all, or the bundle's)",
    )
    verb.add_argument("--fps", metavar="N", help="say whether this frame rate is out of reach")
    verb.add_argument("--imgsz", metavar="HxW", help="input size, px (default: the network's)")
    verb.add_argument(
        "--power-mode", metavar="MODE", help="as nvpmodel calls it (default: the fastest)"
    )


def add_targets(verbs: Any) -> None:
    """Add the verb `targets` to a parser's verbs."""
    text = "List the devices that a bundle can be built for."
    add_verb(verbs, "targets", _targets, text)


def _estimate(options: argparse.Namespace) -> Outcome:
    from irstd.compile.estimate_report import describe_estimates, estimate_source
    from irstd.compile.flags import parse_size

    report = estimate_source(
        options.source,
        target=options.target,
        precision=Precision(options.precision) if options.precision else None,
        fps=options.fps,
        size_hw=parse_size(options.imgsz) if options.imgsz else None,
        power_mode=options.power_mode,
    )
    return Outcome(report, describe_estimates(report))


def _targets(options: argparse.Namespace) -> Outcome:
    from irstd.runtime.sessions import installed_sessions

    del options
    installed = installed_sessions()
    rows = [
        dataclasses.asdict(target)
        | {
            "engines_installed": [name for name in target.engines if name in installed],
            "peaks": _peaks(target),
        }
        for target in TARGETS.values()
    ]
    jetpacks = [dataclasses.asdict(row) for row in JETPACKS]
    text = "\n".join(_target_line(target) for target in TARGETS.values())
    return Outcome({"targets": rows, "jetpacks": jetpacks}, text)


def _peaks(target: Target) -> list[dict[str, Any]]:
    """Return dense peaks by power mode, as published or computed from clocks."""
    device = target.device
    if device is None:
        return []
    return [
        {
            "power_mode": mode.name,
            "int8_tops": device.peak_tops("int8", mode),
            "fp16_tflops": device.peak_tops("fp16", mode),
            "fp32_tflops": device.peak_tops("fp32", mode),
            "dla_int8_tops": device.dla_int8_tops(mode),
        }
        for mode in device.power_modes
    ]


def _target_line(target: Target) -> str:
    line = f"{target.name:22} {target.description:24} engines: {', '.join(target.engines)}"
    device = target.device
    if device is None or target.compute_capability is None:
        return line
    mode = device.power_modes[0]
    major, minor = target.compute_capability
    card = "" if device.product == target.description else f"; figures of {device.product}"
    dla = f", {device.dla_cores} DLA" if device.dla_cores else ""
    return (
        f"{line}; sm_{major}{minor}, {mode.sms} SMs{dla}, {device.memory_gb} GB at "
        f"{mode.bandwidth_gb_s:g} GB/s, dense INT8 {device.peak_tops('int8', mode):.0f} TOPS, FP16 "
        f"{device.peak_tops('fp16', mode):.0f} TFLOPS ({mode.name}){card}"
    )
