"""The command `irstd-compile` (interface.md)."""

import argparse
import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from irstd import cli
from irstd.calibration.observers import METHODS
from irstd.cli import Outcome, add_verb
from irstd.compile.networks import NETWORKS
from irstd.errors import UsageError
from irstd.files import cache_dir, write_atomic
from irstd.fingerprint import canonical_json
from irstd.targets import TARGETS
from irstd.types import BIT_DEPTHS, Fit, Precision

_log = logging.getLogger("irstd-compile")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = cli.make_parser(
        "irstd-compile", "From a checkpoint or an ONNX graph to a bundle that runs."
    )
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    _add_build(verbs)
    _add_inspect(verbs)
    _add_verify(verbs)
    _add_distil(verbs)
    _add_export(verbs)
    _add_calibrate(verbs)
    add_verb(verbs, "targets", _targets, "List the devices that a bundle can be built for.")
    add_verb(verbs, "networks", _networks, "List the networks, their size and cost.")
    add_verb(verbs, "doctor", _doctor, "Say what this machine has and lacks, and how to mend it.")
    return cli.run(parser, argv)


def _add_build(verbs: Any) -> None:
    verb = add_verb(verbs, "build", _build, "Build a bundle from a network, graph or YAML file.")
    verb.add_argument("source", metavar="SOURCE", help="network name, .onnx file or .yaml file")
    verb.add_argument("-o", dest="out", required=True, type=Path, help="bundle to write (.irstd)")
    _add_build_flags(verb)
    verb.add_argument("--dry-run", action="store_true", help="resolve and check, build nothing")


def _add_build_flags(verb: Any) -> None:
    verb.add_argument("--target", metavar="T", help=f"one of {', '.join(TARGETS)} (default: cpu)")
    choices = ",".join(precision.value for precision in Precision)
    verb.add_argument("--precision", metavar=f"{{{choices}}}", help="(default: fp32)")
    _add_source_flags(verb)
    _add_frame_flags(verb)
    verb.add_argument("--verify-data", metavar="DIR", help="verify on this data folder instead")
    verb.add_argument("--verify-list", metavar="FILE", help="verify on these stems only")
    verb.add_argument("--int8-form", metavar="{cpu,nvidia}", help="(default: by target)")
    verb.add_argument("--budget", metavar="LIST", help='such as "hse=-0.3,pd=-0.3,fa=+2"')
    verb.add_argument("--keep", action="store_const", const=True,
                      help="write the bundle even if the budget is violated")  # fmt: skip


def _add_source_flags(verb: Any) -> None:
    verb.add_argument("--weights", metavar="FILE", help="checkpoint (default: the shipped one)")
    verb.add_argument("--imgsz", metavar="HxW", help="input size (default: the network's)")
    verb.add_argument("--normalize", metavar="M,S",
                      help="MEAN,STD or M1,M2,M3,S1,S2,S3 in grey levels, or max")  # fmt: skip
    verb.add_argument("--output", metavar="{auto,logits,probabilities}", help="(default: auto)")
    depths = ",".join(map(str, BIT_DEPTHS))
    verb.add_argument("--bit-depth", metavar=f"{{{depths}}}", help="(default: 8)")
    fits = ",".join(fit.value for fit in Fit)
    verb.add_argument("--fit", metavar=f"{{{fits}}}", help="(default: pad)")


def _add_frame_flags(verb: Any) -> None:
    verb.add_argument("--data", metavar="DIR", help="frames: half calibrate, half verify")
    verb.add_argument("--list", metavar="FILE", help="restrict --data to these stems")
    methods = ",".join(METHODS)
    verb.add_argument("--calibration", metavar=f"{{{methods}}}", help="(default: minmax)")
    verb.add_argument("--seed", metavar="N", help="of the split (default: 0)")
    verb.add_argument("--cache", type=Path, metavar="DIR", help="folder for stage results")
    verb.add_argument("--no-cache", action="store_true", help="compute every stage anew")


def _add_inspect(verbs: Any) -> None:
    verb = add_verb(verbs, "inspect", _inspect, "Say what is inside a bundle.")
    verb.add_argument("bundle", type=Path, metavar="BUNDLE")


def _add_verify(verbs: Any) -> None:
    verb = add_verb(verbs, "verify", _verify, "Check hashes, golden frames, parity and budget.")
    verb.add_argument("bundle", type=Path, metavar="BUNDLE")
    verb.add_argument("--data", type=Path, metavar="DIR", help="score both graphs on this folder")
    verb.add_argument("--list", type=Path, metavar="FILE", help="restrict --data to these stems")
    verb.add_argument("--budget", metavar="LIST", help='such as "hse=-0.3,fa=+2"')


def _add_distil(verbs: Any) -> None:
    verb = add_verb(verbs, "distil", _distil, "Train a network as a YAML file says.")
    verb.add_argument("config", type=Path, metavar="CONFIG.yaml")
    verb.add_argument("--resume", action="store_true", help="go on with a started run")


def _add_export(verbs: Any) -> None:
    verb = add_verb(verbs, "export", _export, "Write the plain static FP32 graph of a source.")
    verb.add_argument("source", metavar="SOURCE", help="network name or .onnx file")
    verb.add_argument("-o", dest="out", required=True, type=Path, help=".onnx file to write")
    _add_source_flags(verb)
    verb.add_argument("--cache", type=Path, metavar="DIR", help="folder for stage results")
    verb.add_argument("--no-cache", action="store_true", help="compute every stage anew")


def _add_calibrate(verbs: Any) -> None:
    verb = add_verb(verbs, "calibrate", _calibrate, "Write the scale table of a source.")
    verb.add_argument("source", metavar="SOURCE", help="network name or .onnx file")
    verb.add_argument("-o", dest="out", required=True, type=Path, help=".json file to write")
    _add_source_flags(verb)
    _add_frame_flags(verb)
    verb.add_argument("--int8-form", metavar="{cpu,nvidia}", help="(default: cpu)")


def _settings(options: argparse.Namespace, **fixed: str) -> Any:
    """Resolve the flags of a verb that takes a SOURCE."""
    from irstd.compile.settings import FLAGS, resolve

    given = {flag: getattr(options, flag.replace("-", "_"), None) for flag in FLAGS}
    return resolve(options.source, {**given, **fixed})


def _cache(options: argparse.Namespace) -> Path | None:
    return None if options.no_cache else options.cache or cache_dir()


def _progress(options: argparse.Namespace) -> Any:
    """Return what tells the stages: lines on a terminal, JSON lines otherwise; nothing with -q."""

    def tell(message: str) -> None:
        if options.quiet:
            return
        line = message if sys.stderr.isatty() else canonical_json({"progress": message})
        print(line, file=sys.stderr, flush=True)

    return tell


def _build(options: argparse.Namespace) -> Outcome:
    from irstd.compile.pipeline import run_build
    from irstd.compile.summary import describe_build

    settings = _settings(options)
    _require_bundle_name(options.out)
    if options.dry_run:
        from irstd.compile.frame_sets import choose_frames
        from irstd.compile.prepare import prepare
        from irstd.compile.sources import open_source

        frames = choose_frames(settings)
        prepared = prepare(open_source(settings, None), settings, None)
        report = {
            "settings": settings.resolved(),
            "input": prepared.spec,
            "calibrate_frames": len(frames.calibrate),
            "verify_frames": len(frames.verify),
            "written": False,
        }
        plain = cli_plain(report)
        return Outcome(plain, "\n".join(f"{key}: {value}" for key, value in plain.items()))
    result = run_build(settings, options.out, _cache(options), _progress(options))
    report = {
        "bundle": str(result.path),
        "bundle_sha256": result.sha256,
        **result.report,
    }
    return Outcome(report, describe_build(result))


def _inspect(options: argparse.Namespace) -> Outcome:
    from irstd.compile.summary import describe_bundle, inspect_report

    report = inspect_report(options.bundle)
    return Outcome(report, describe_bundle(report))


def _verify(options: argparse.Namespace) -> Outcome:
    from irstd.compile.accuracy import parse_budget
    from irstd.compile.summary import describe_verdict
    from irstd.compile.verify import verify_bundle

    budget = parse_budget(options.budget) if options.budget else {}
    if budget and options.data is None:
        raise UsageError("--budget needs labelled frames: give --data DIR")
    if options.list is not None and options.data is None:
        raise UsageError("--list needs --data DIR")
    found = verify_bundle(options.bundle, options.data, options.list, budget)
    report = cli_plain(found)
    lines = [
        f"{options.bundle}: sound, sha256 {found.bundle_sha256}",
        f"FP32 graph: {found.reference}",
        f"deployed in {found.engine}: {found.deployed}",
        *([] if found.verdict is None else describe_verdict(found.verdict)),
    ]
    return Outcome(report, "\n".join(lines))


def _distil(options: argparse.Namespace) -> Outcome:
    from irstd.compile.distil.config import load_config

    config = load_config(options.config)
    try:
        from irstd.compile.distil.train import distil
    except ImportError as error:
        from irstd.errors import MissingDependency

        raise MissingDependency(
            f"training needs {error.name}: pip install 'irstd-sdk[train]'"
        ) from error
    best = distil(config, resume=options.resume)
    return Outcome({"weights": str(best)}, f"best weights: {best}")


def _export(options: argparse.Namespace) -> Outcome:
    from irstd.compile.prepare import prepare
    from irstd.compile.sources import open_source

    settings = _settings(options)
    prepared = prepare(open_source(settings, _cache(options)), settings, _cache(options))
    write_atomic(options.out, prepared.model.SerializeToString())
    report = cli_plain({"onnx": str(options.out), "input": prepared.spec})
    return Outcome(report, f"{options.out}: plain FP32 graph; the preprocessing is {report}")


def _calibrate(options: argparse.Namespace) -> Outcome:
    from irstd.compile.frame_sets import choose_frames, read_calibration
    from irstd.compile.pipeline import calibrate_graph
    from irstd.compile.prepare import prepare
    from irstd.compile.quantize import plan_int8
    from irstd.compile.sources import open_source

    settings = _settings(options, precision="int8")
    frames = choose_frames(settings)
    prepared = prepare(open_source(settings, _cache(options)), settings, _cache(options))
    plan = plan_int8(prepared.model, settings.form, settings.bit_depth)
    read = read_calibration(frames.calibrate, prepared.spec)
    table = calibrate_graph(prepared, plan, read, settings.calibration, _cache(options))
    write_atomic(options.out, table.to_json())
    report = {
        "scales": str(options.out),
        "method": table.method,
        "frames": [file.stem for file in frames.calibrate],
        "tensors": len(table.ranges),
    }
    return Outcome(report, f"{options.out}: {len(table.ranges)} ranges by {table.method}")


def _targets(options: argparse.Namespace) -> Outcome:
    from irstd.runtime.sessions import installed_sessions

    del options
    installed = installed_sessions()
    rows = [
        dataclasses.asdict(target)
        | {"engines_installed": [name for name in target.engines if name in installed]}
        for target in TARGETS.values()
    ]
    lines = [
        f"{row['name']:22} {row['description']:28} engines: {', '.join(row['engines'])}"
        for row in rows
    ]
    return Outcome({"targets": rows}, "\n".join(lines))


def _networks(options: argparse.Namespace) -> Outcome:
    from irstd.compile.sources import shipped_names

    del options
    shipped = shipped_names()
    rows = [
        {
            "name": spec.name,
            "parameters": spec.parameters,
            "macs": spec.macs,
            "input": [1, spec.in_channels, *spec.default_size_hw],
            "weights": "shipped" if spec.name in shipped else None,
        }
        for spec in NETWORKS.values()
    ]
    lines = [
        f"{row['name']:8} {row['parameters']:>10,} parameters  {row['macs'] / 1e9:.3f} GMAC "
        f"at {'x'.join(map(str, row['input'][1:]))}  weights: {row['weights'] or 'bring your own'}"
        for row in rows
    ]
    return Outcome({"networks": rows}, "\n".join(lines))


def _doctor(options: argparse.Namespace) -> Outcome:
    from irstd.compile.doctor import describe_findings, examine

    del options
    findings = examine()
    report = {"findings": [dataclasses.asdict(finding) for finding in findings]}
    return Outcome(report, describe_findings(findings))


def _require_bundle_name(path: Path) -> None:
    if path.suffix != ".irstd":
        raise UsageError(f"-o {path}: a bundle's name ends in .irstd")


def cli_plain(value: Any) -> Any:
    """Return dataclasses and paths as JSON values."""
    from irstd.fingerprint import to_plain

    return to_plain(value)


if __name__ == "__main__":
    sys.exit(main())
