"""What the compile command tells people, and the report of `inspect`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irstd.bundle import read_bundle
from irstd.compile.accuracy import BUDGET_METRICS, Verdict
from irstd.compile.report import read_report
from irstd.errors import BundleCorrupt
from irstd.files import printable
from irstd.fingerprint import to_plain

if TYPE_CHECKING:
    from irstd.compile.pipeline import BuildResult
    from irstd.compile.verify import Verification

_TILING = {
    True: "changes the result a little: a gate pools over the whole input",
    False: "changes the result near the borders only: no global pooling",
    None: "may change the result: not known whether it pools globally",
}


def describe_build(result: "BuildResult") -> str:
    """Return what was built, engine by engine, and how accurate it is."""
    spec = result.manifest.input
    size_mb = result.path.stat().st_size / 2**20
    lines = [
        f"{result.path}: {result.manifest.network} {result.manifest.precision.value} "
        f"{spec.height}x{spec.width} for {result.manifest.target}, {size_mb:.1f} MiB",
        *_kernel_lines(result.report),
        *_engine_lines(to_plain(result.manifest.engines), result.report["engines_refused"]),
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


def describe_verification(path: Path, found: "Verification") -> str:
    """Return what `verify` found as lines for people."""
    lines = [
        f"{path}: sound, sha256 {found.bundle_sha256}",
        *([] if found.reference is None else [f"FP32 graph: {found.reference}"]),
        f"deployed in {found.engine}: {found.deployed}",
        *(f"not verified: {what}" for what in found.not_verified),
    ]
    if found.verdict is not None:
        lines += describe_verdict(found.verdict)
    elif found.built_within_budget is False:
        lines.append("budget: VIOLATED when it was built, and kept by --keep")
    return "\n".join(lines)


def describe_input(spec: Mapping[str, Any]) -> str:
    """Return an InputSpec, as JSON values, as one line."""
    affines = zip(spec["scale"], spec["offset"], strict=True)
    levels = "frame / its maximum" if spec["per_frame_max"] else "grey level"
    return (
        f"input: {len(spec['scale'])} x {spec['height']} x {spec['width']}, {spec['bit_depth']} "
        f"bit, {spec['fit']}; channel = {levels} * scale + offset: "
        + ", ".join(f"{scale:.6g} {offset:+.6g}" for scale, offset in affines)
    )


def inspect_report(path: Path) -> dict[str, Any]:
    """Return what is inside a bundle: manifest, members, layers and their precision, verdict.

    "layers" is null without onnx, as on a board.

    Raises:
        BundleError: The file is not sound.
    """
    bundle = read_bundle(path)
    stored = read_report(bundle)

    def part(key: str, kind: type) -> Any:
        value = stored.get(key, kind())
        if not isinstance(value, kind):
            raise BundleCorrupt(f"{path}: report.json: {key} is no {kind.__name__}")
        return value

    return {
        "bundle": str(path),
        "bundle_sha256": bundle.sha256,
        "manifest": to_plain(bundle.manifest),
        "members": to_plain(bundle.members),
        "layers": layer_precisions(bundle.read(bundle.manifest.model), str(path)),
        "kept_in_float": part("float_nodes", dict),
        "kernels": part("kernels", dict),
        "written_out": part("written_out", dict),
        "plugins": part("plugins", dict),
        "lint": part("lint", list),
        "engines_refused": part("engines_refused", dict),
        "engines_built": part("engines_built", dict),
        "verdict": part("verdict", dict) or None,
        "environment": part("environment", dict),
        "calibrated_on": part("calibrated_on", list),
        "verified_on": part("verified_on", list),
    }


def layer_precisions(model: bytes, origin: str) -> list[dict[str, str]] | None:
    """Return each convolution and matrix product of a graph with the precision it asks for.

    None where onnx is not installed.

    Raises:
        BundleCorrupt: Not an ONNX graph; names `origin`.
    """
    try:
        import onnx
    except ImportError:
        return None
    try:
        graph = onnx.load_model_from_string(model).graph
    except Exception as error:  # protobuf's DecodeError, which it offers without types
        raise BundleCorrupt(f"{origin}: its graph is not ONNX ({error})") from error
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
    counts = Counter(layer["precision"] for layer in report["layers"] or [])
    asked = ", ".join(f"{n} {name}" for name, n in sorted(counts.items()))
    lines = [
        f"{report['bundle']}: {manifest['network']} {manifest['precision']} for "
        f"{manifest['target']}, written by irstd {manifest['sdk_version']}",
        f"sha256 {report['bundle_sha256']}",
        f"{describe_input(manifest['input'])}; threshold {manifest['threshold']}",
        f"tiling and padding: {_TILING[manifest['global_pooling']]}",
        f"layers asked for: {asked or 'not known here, where onnx is not installed'}",
        *(f"  {name} stays in float: {why}" for name, why in report["kept_in_float"].items()),
        *_kernel_lines(report),
        *_engine_lines(manifest["engines"], report["engines_refused"]),
    ]
    if manifest["calibration"]:
        frames = len(report["calibrated_on"])
        form = manifest["int8_form"]
        lines.append(f"calibrated by {manifest['calibration']} on {frames} frames, {form} form")
    lines += [f"licence of {what}: {text}" for what, text in manifest["licences"].items()]
    lines += _change_lines(report["verdict"] or {})
    return "\n".join(printable(line) for line in lines)


def _kernel_lines(report: Mapping[str, Any]) -> list[str]:
    """Return how many operators run in fused kernels, and why others do not."""
    lines = []
    for key, what in (("kernels", "fused kernels"), ("plugins", "plugins, compiled by finish")):
        if counts := Counter(map(str, report[key].values())):
            lines.append(f"{what}: {', '.join(f'{n} {op}' for op, n in counts.items())}")
    left = {
        name: why for name, why in report["written_out"].items() if name not in report["plugins"]
    }
    reasons = Counter(map(str, left.values()))
    return lines + [
        f"{n} fused operators run as standard ones: {why}" for why, n in reasons.items()
    ]


def _change_lines(verdict: Mapping[str, Any]) -> list[str]:
    accuracy = verdict.get("accuracy")
    change = accuracy.get("change") if isinstance(accuracy, Mapping) else None
    if not isinstance(change, Mapping):
        return ["accuracy: not measured"]
    told = [f"{name} {change[name]:+.2f}" for name in BUDGET_METRICS
            if isinstance(change.get(name), float)]  # fmt: skip
    state = "" if verdict.get("passed") is not False else "; budget VIOLATED"
    return [f"change against fp32: {', '.join(told)}{state}"]


def _engine_lines(engines: Sequence[Mapping[str, Any]], refused: Mapping[str, Any]) -> list[str]:
    lines = [
        f"engine {'*' if engine['chosen'] else ' '} {engine['library']}: "
        + (f"{engine['median_ms']:.2f} ms, " if engine["median_ms"] is not None else "")
        + engine["reason"]
        for engine in engines
    ]
    lines = lines or ["engine: portable, it is built on the device"]
    return lines + [f"engine   {name}: did not run: {why}" for name, why in refused.items()]
