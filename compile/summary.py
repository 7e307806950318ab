"""What the compile command tells people, and the report of `inspect`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from irstd.bundle import read_bundle
from irstd.compile.accuracy import BUDGET_METRICS, Verdict
from irstd.compile.pipeline import BuildResult
from irstd.errors import BundleCorrupt
from irstd.fingerprint import to_plain


def describe_build(result: BuildResult) -> str:
    """Return what was built, engine by engine, and how accurate it is."""
    spec = result.manifest.input
    size_mb = result.path.stat().st_size / 2**20
    lines = [
        f"{result.path}: {result.manifest.network} {result.manifest.precision.value} "
        f"{spec.height}x{spec.width} for {result.manifest.target}, {size_mb:.1f} MiB",
        *_engine_lines(to_plain(result.manifest.engines)),
        *describe_verdict(result.verdict),
    ]
    return "\n".join(lines)


def describe_verdict(verdict: Verdict) -> list[str]:
    """Return the accuracy before and after, metric by metric."""
    if verdict.accuracy is None:
        what = "no labelled frames" if verdict.frames else "no frames"
        return [f"accuracy: not measured, {what} to verify on (--data with masks/)"]
    accuracy = verdict.accuracy
    low, high = accuracy.pd_interval
    lines = [
        f"accuracy on {accuracy.fp32.frames} frames, {accuracy.fp32.targets} targets "
        f"(Pd 95 % interval {low:.1f} to {high:.1f}):",
        f"  {'':6}{'fp32':>9}{'deployed':>10}{'change':>9}",
    ]
    lines += [
        f"  {name:6}{getattr(accuracy.fp32, name):9.2f}{getattr(accuracy.deployed, name):10.2f}"
        f"{accuracy.change[name]:+9.2f}"
        for name in BUDGET_METRICS
    ]
    if verdict.budget:
        state = "kept" if verdict.passed else "VIOLATED: " + "; ".join(verdict.violations)
        lines.append(f"budget: {state}")
    return lines


def inspect_report(path: Path) -> dict[str, Any]:
    """Return what is inside a bundle: manifest, members, layers and their precision, verdict.

    Raises:
        BundleError: The file is not sound.
    """
    bundle = read_bundle(path)
    manifest: dict[str, Any] = to_plain(bundle.manifest)
    stored: dict[str, Any] = {}
    if "report.json" in bundle.members:
        try:
            stored = json.loads(bundle.read("report.json"))
        except ValueError as error:
            raise BundleCorrupt(f"{path}: report.json is not JSON ({error})") from error
    return {
        "bundle": str(path),
        "bundle_sha256": bundle.sha256,
        "manifest": manifest,
        "members": to_plain(bundle.members),
        "layers": layer_precisions(bundle.read(bundle.manifest.model)),
        "kept_in_float": stored.get("float_nodes", {}),
        "verdict": stored.get("verdict"),
        "environment": stored.get("environment"),
        "calibrated_on": stored.get("calibrated_on", []),
        "verified_on": stored.get("verified_on", []),
    }


def layer_precisions(model: bytes) -> list[dict[str, str]]:
    """Return each convolution and matrix product of a graph with the precision it asks for."""
    import onnx

    graph = onnx.load_model_from_string(model).graph
    producers = {name: node for node in graph.node for name in node.output}
    kinds = {constant.name: constant.data_type for constant in graph.initializer}
    rows = []
    for node in graph.node:
        if node.op_type not in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
            continue
        makers = [producers.get(name) for name in node.input[:2]]
        integer = all(maker is not None and maker.op_type == "DequantizeLinear" for maker in makers)
        half = any(kinds.get(name) == onnx.TensorProto.FLOAT16 for name in node.input)
        precision = "int8" if integer else "fp16" if half else "fp32"
        rows.append({"name": node.name, "type": node.op_type, "precision": precision})
    return rows


def describe_bundle(report: Mapping[str, Any]) -> str:
    """Return the report of `inspect` as lines for people."""
    manifest = report["manifest"]
    spec = manifest["input"]
    counts: dict[str, int] = {}
    for layer in report["layers"]:
        counts[layer["precision"]] = counts.get(layer["precision"], 0) + 1
    pooling = {
        True: "changes the result a little: a gate pools over the whole input",
        False: "equals the full frame: no global pooling",
        None: "may change the result: not known whether it pools globally",
    }[manifest["global_pooling"]]
    lines = [
        f"{report['bundle']}: {manifest['network']} {manifest['precision']} for "
        f"{manifest['target']}, written by irstd {manifest['sdk_version']}",
        f"sha256 {report['bundle_sha256']}",
        f"input {spec['height']}x{spec['width']}, {spec['bit_depth']} bit, {spec['fit']}; "
        f"threshold {manifest['threshold']}",
        f"tiling and padding: {pooling}",
        "layers asked for: " + ", ".join(f"{n} {name}" for name, n in sorted(counts.items())),
        *(f"  {name} in float: {why}" for name, why in report["kept_in_float"].items()),
        *_engine_lines(manifest["engines"]),
    ]
    if manifest["calibration"]:
        frames = len(report["calibrated_on"])
        form = manifest["int8_form"]
        lines.append(f"calibrated by {manifest['calibration']} on {frames} frames, {form} form")
    lines += [f"licence of {what}: {text}" for what, text in manifest["licences"].items()]
    verdict = report["verdict"] or {}
    if verdict.get("accuracy"):
        change = verdict["accuracy"]["change"]
        lines.append(
            "change against fp32: " + ", ".join(f"{n} {change[n]:+.2f}" for n in BUDGET_METRICS)
        )
    return "\n".join(lines)


def _engine_lines(engines: Sequence[Mapping[str, Any]]) -> list[str]:
    if not engines:
        return ["engine: portable, it is built on the device"]
    return [
        f"engine {'*' if engine['chosen'] else ' '} {engine['library']}: "
        + (f"{engine['median_ms']:.2f} ms, " if engine["median_ms"] is not None else "")
        + engine["reason"]
        for engine in engines
    ]
