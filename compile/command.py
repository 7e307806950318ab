"""The command `irstd-compile` (interface.md)."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irstd import cli
from irstd.calibration.observers import METHODS
from irstd.cli import Outcome, add_verb
from irstd.compile.estimate_command import add_estimate, add_targets
from irstd.compile.finish_command import add_finish
from irstd.compile.networks import NETWORKS
from irstd.compile.settings import OUTPUT_KINDS, FrameSettings, LoweringSettings, SourceSettings
from irstd.errors import BudgetExceeded, UsageError
from irstd.files import check_writable, to_path, write_atomic
from irstd.fingerprint import to_plain
from irstd.manifest_json import INT8_FORMS
from irstd.targets import TARGETS
from irstd.types import BIT_DEPTHS, Fit, Precision

if TYPE_CHECKING:
    from irstd.compile.flags import Request
    from irstd.compile.prepare import Prepared
    from irstd.compile.progress import Progress


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = cli.make_parser(
        "irstd-compile", "From a checkpoint or an ONNX graph to a bundle that runs."
    )
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    _add_build(verbs)
    add_finish(verbs)
    _add_inspect(verbs)
    _add_verify(verbs)
    _add_distil(verbs)
    _add_export(verbs)
    _add_calibrate(verbs)
    add_estimate(verbs)
    add_targets(verbs)
    add_verb(verbs, "networks", _networks, "List the networks, their size and cost.")
    add_verb(verbs, "doctor", _doctor, "Say what this machine has and lacks, and how to mend it.")
    return cli.run(parser, argv)


def _add_build(verbs: Any) -> None:
    text = "Build a bundle from a network, graph or YAML file."
    verb = add_verb(verbs, "build", _build, text)
    verb.add_argument(
        "source",
        metavar="SOURCE",
        help="network name, .onnx file, or .yaml file with the key source and long flags as keys",
    )
    verb.add_argument(
        "-o", dest="out", required=True, type=to_path, help="bundle to write (.irstd)"
    )
    default = LoweringSettings()
    _add_flag(verb, "--target", "T", f"one of {', '.join(TARGETS)}", default.target)
    _add_choice(verb, "--precision", [item.value for item in Precision], default.precision.value)
    _add_source_flags(verb)
    _add_frame_flags(verb)
    _add_flag(verb, "--verify-data", "DIR", "verify on this data folder instead", "half of --data")
    _add_flag(verb, "--verify-list", "FILE", "restrict --verify-data to these stems", "all")
    _add_flag(
        verb,
        "--budget",
        "LIST",
        'allowed change of accuracy, such as "hse=-0.3,pd=-0.3,fa=+2": points, points, 1e-6',
        "measured, never fails",
    )
    _add_switch(verb, "--keep", "write the bundle even if the budget is violated")
    _add_cache_flags(verb)
    _add_switch(verb, "--dry-run", "resolve and check, build nothing")


def _add_source_flags(verb: Any) -> None:
    default = SourceSettings("")
    _add_flag(verb, "--weights", "FILE", "checkpoint for a named network", "the shipped one")
    _add_flag(
        verb,
        "--input-norm-eps",
        "E",
        "eps of the BatchNorm on the raw input of a public checkpoint, which the file cannot tell; "
        "some were trained with 0.9",
        default.input_norm_eps,
    )
    _add_flag(verb, "--imgsz", "HxW", "static input size, px", "the network's")
    _add_flag(
        verb,
        "--normalize",
        "M,S",
        "MEAN,STD or M1,M2,M3,S1,S2,S3 in grey levels, or max; needed for foreign sources",
        "what the weights say",
    )
    _add_choice(verb, "--output", OUTPUT_KINDS, default.output, "what the graph computes; ")
    _add_choice(verb, "--bit-depth", BIT_DEPTHS, default.bit_depth)
    _add_choice(verb, "--fit", [item.value for item in Fit], default.fit.value)


def _add_frame_flags(verb: Any) -> None:
    _add_flag(verb, "--data", "DIR", "frames: half calibrate, half verify", "none")
    _add_flag(verb, "--list", "FILE", "restrict --data to these stems", "all")
    _add_choice(verb, "--calibration", METHODS, LoweringSettings().calibration)
    _add_choice(verb, "--int8-form", INT8_FORMS, "by target")
    _add_flag(verb, "--seed", "N", "of the split", FrameSettings().seed)


def _add_cache_flags(verb: Any) -> None:
    _add_flag(verb, "--cache", "DIR", "folder for stage results", "$IRSTD_CACHE, else the user's")
    _add_switch(verb, "--no-cache", "compute every stage anew")


def _add_flag(verb: Any, flag: str, metavar: str, text: str, default: object) -> None:
    """Add a flag whose default is in the settings, not here: a YAML file may say otherwise."""
    told = f"{text} (default: {default})".replace("%", "%%")
    verb.add_argument(flag, metavar=metavar, default=argparse.SUPPRESS, help=told)


def _add_choice(verb: Any, flag: str, choices: Any, default: object, text: str = "") -> None:
    listed = ", ".join(map(str, choices))
    _add_flag(verb, flag, flag.lstrip("-").upper(), f"{text}one of {listed}", default)


def _add_switch(verb: Any, flag: str, text: str) -> None:
    told = f"{text} (default: no)"
    verb.add_argument(flag, action="store_true", default=argparse.SUPPRESS, help=told)


def _add_inspect(verbs: Any) -> None:
    verb = add_verb(verbs, "inspect", _inspect, "Say what is inside a bundle.")
    verb.add_argument("bundle", type=to_path, metavar="BUNDLE")


def _add_verify(verbs: Any) -> None:
    text = "Check hashes, golden frames, parity and budget."
    verb = add_verb(verbs, "verify", _verify, text)
    verb.add_argument("bundle", type=to_path, metavar="BUNDLE")
    _add_flag(verb, "--data", "DIR", "score both graphs on this data folder", "none")
    _add_flag(verb, "--list", "FILE", "restrict --data to these stems", "all")
    _add_flag(verb, "--budget", "LIST", 'such as "hse=-0.3,fa=+2"', "the build's")


def _add_distil(verbs: Any) -> None:
    verb = add_verb(verbs, "distil", _distil, "Train a network as a YAML file says.")
    verb.add_argument("config", type=to_path, metavar="CONFIG.yaml")
    verb.add_argument("--resume", action="store_true", help="go on with a started run")


def _add_export(verbs: Any) -> None:
    text = "Write the plain static FP32 graph of a source."
    verb = add_verb(verbs, "export", _export, text)
    verb.add_argument("source", metavar="SOURCE", help="network name, .onnx or .yaml file")
    verb.add_argument("-o", dest="out", required=True, type=to_path, help=".onnx file to write")
    _add_source_flags(verb)
    _add_cache_flags(verb)


def _add_calibrate(verbs: Any) -> None:
    text = "Write the scale table of a source."
    verb = add_verb(verbs, "calibrate", _calibrate, text)
    verb.add_argument("source", metavar="SOURCE", help="network name, .onnx or .yaml file")
    verb.add_argument("-o", dest="out", required=True, type=to_path, help=".json file to write")
    _add_source_flags(verb)
    _add_frame_flags(verb)
    _add_cache_flags(verb)


def _request(options: argparse.Namespace, **fixed: str) -> "Request":
    """Resolve the flags of a verb that takes a SOURCE."""
    from irstd.compile.flags import FLAGS, resolve

    given = {name: getattr(options, name.replace("-", "_"), None) for name in FLAGS}
    return resolve(options.source, {**given, **fixed})


def _progress(options: argparse.Namespace) -> "Progress":
    from irstd.compile.progress import Progress

    return Progress(quiet=options.quiet)


def _prepared(request: "Request") -> "Prepared":
    from irstd.compile.prepare import prepare
    from irstd.compile.sources import open_source

    source = request.settings.source
    return prepare(open_source(source, request.cache_folder), source, request.cache_folder)


def _build(options: argparse.Namespace) -> Outcome:
    from irstd.compile.pipeline import run_build
    from irstd.compile.summary import describe_build

    if options.out.suffix != ".irstd":
        raise UsageError(f"-o {options.out}: a bundle's name ends in .irstd")
    request = _request(options)
    if request.dry_run:
        check_writable(options.out, request.settings.input_files)
        return _rehearse(dataclasses.replace(request, no_cache=True), options.out)
    result = run_build(request.settings, options.out, request.cache_folder, _progress(options))
    report = {"bundle": str(result.path), "bundle_sha256": result.sha256, **result.report}
    exit_code = 0 if result.verdict.passed else BudgetExceeded.exit_code
    return Outcome(report, describe_build(result), exit_code)


def _rehearse(request: "Request", out: Path) -> Outcome:
    from irstd.compile.frame_sets import choose_frames
    from irstd.compile.summary import describe_input

    settings = request.settings
    precision, budget = settings.lowering.precision, bool(settings.budget)
    frames = choose_frames(settings.frames, precision, budget=budget)
    prepared = _prepared(request)
    report = {
        "settings": settings.resolved(),
        "input": to_plain(prepared.spec),
        "calibrate_frames": len(frames.calibrate),
        "verify_frames": len(frames.verify),
        "written": False,
    }
    lines = [
        f"{out}: would be built from {settings.source.name}, nothing was written",
        *(f"{name}: {value}" for name, value in settings.resolved().items()),
        describe_input(report["input"]),
        f"{len(frames.calibrate)} frames calibrate, {len(frames.verify)} verify",
    ]
    return Outcome(report, "\n".join(lines))


def _inspect(options: argparse.Namespace) -> Outcome:
    from irstd.compile.summary import describe_bundle, inspect_report

    report = inspect_report(options.bundle)
    return Outcome(report, describe_bundle(report))


def _verify(options: argparse.Namespace) -> Outcome:
    from irstd.compile.accuracy import parse_budget
    from irstd.compile.summary import describe_verification
    from irstd.compile.verify import verify_bundle

    data, listed = getattr(options, "data", None), getattr(options, "list", None)
    budget = parse_budget(options.budget) if "budget" in options else None
    if data is None and (budget or listed):
        raise UsageError(f"{'--budget' if budget else '--list'} needs --data DIR")
    found = verify_bundle(
        options.bundle,
        Path(data) if data else None,
        Path(listed) if listed else None,
        budget,
        _progress(options),
    )
    exit_code = 0 if found.passed else BudgetExceeded.exit_code
    return Outcome(found.to_dict(), describe_verification(options.bundle, found), exit_code)


def _distil(options: argparse.Namespace) -> Outcome:
    from irstd.compile.distil.config import load_config

    config = load_config(options.config)  # a wrong file is told without torch
    from irstd.compile.distil.train import distil

    best = distil(config, resume=options.resume, quiet=options.quiet)
    return Outcome({"weights": str(best)}, f"best weights: {best}")


def _export(options: argparse.Namespace) -> Outcome:
    from irstd.compile.summary import describe_input

    request = _request(options)
    check_writable(options.out, request.settings.input_files)
    prepared = _prepared(request)
    write_atomic(options.out, prepared.model.SerializeToString())
    report = {
        "onnx": str(options.out),
        "input": to_plain(prepared.spec),
        "logits_from_sigmoid": prepared.had_sigmoid,
    }
    lines = [
        f"{options.out}: plain FP32 graph, input (1, C, H, W), output (1, 1, H, W) logits",
        describe_input(report["input"]),
    ]
    return Outcome(report, "\n".join(lines))


def _calibrate(options: argparse.Namespace) -> Outcome:
    from irstd.compile.frame_sets import choose_frames, read_calibration
    from irstd.compile.lower import calibrate_graph
    from irstd.compile.quantize import plan_int8

    request = _request(options, precision=Precision.INT8.value)
    settings = request.settings
    check_writable(options.out, settings.input_files)
    frames = choose_frames(settings.frames, Precision.INT8, budget=False).calibrate
    prepared = _prepared(request)
    table = calibrate_graph(
        prepared,
        plan_int8(prepared.model, settings.lowering.form, prepared.spec),
        read_calibration(frames, prepared.spec),
        settings.lowering.calibration,
        request.cache_folder,
        _progress(options),
    )
    write_atomic(options.out, table.to_json())
    report = {
        "scales": str(options.out),
        "method": table.method,
        "frames": [file.stem for file in frames],
        "tensors": len(table.ranges),
    }
    text = f"{options.out}: {len(table.ranges)} ranges by {table.method} from {len(frames)} frames"
    return Outcome(report, text)


def _networks(options: argparse.Namespace) -> Outcome:
    from irstd.compile.shipped import shipped_names

    del options
    shipped = shipped_names()
    rows, lines = [], []
    for spec in NETWORKS.values():
        size = [spec.in_channels, *spec.default_size_hw]
        weights = "shipped" if spec.name in shipped else None
        rows.append(
            {
                "name": spec.name,
                "parameters": spec.parameters,
                "macs": spec.macs,
                "input": [1, *size],
                "weights": weights,
            }
        )
        lines.append(
            f"{spec.name:8} {spec.parameters:>10,} parameters  {spec.macs / 1e9:.3f} GMAC at "
            f"{'x'.join(map(str, size))}  weights: {weights or 'bring your own'}"
        )
    return Outcome({"networks": rows}, "\n".join(lines))


def _doctor(options: argparse.Namespace) -> Outcome:
    from irstd.compile.doctor import describe_findings, examine

    del options
    findings = examine()
    report = {"findings": [dataclasses.asdict(finding) for finding in findings]}
    return Outcome(report, describe_findings(findings))


if __name__ == "__main__":
    sys.exit(main())
