"""`irstd-compile finish`: its flags, and what it answers people."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irstd.cli import Outcome, add_verb
from irstd.engine_record import PlanForm
from irstd.files import cache_dir, to_path

if TYPE_CHECKING:
    from irstd.compile.finish_result import Finished

_ORIGINS = {
    "built": "built here",
    "cache": "found in the cache, nothing was rebuilt",
    "bundle": "was in the bundle already, nothing was rebuilt",
}


def add_finish(verbs: Any) -> None:
    """Add the verb."""
    text = "Build a bundle's engine on the device that will run it."
    verb = add_verb(verbs, "finish", _finish, text)
    verb.add_argument("bundle", type=to_path, metavar="BUNDLE")
    verb.add_argument(
        "-o", dest="out", type=to_path, help="bundle to write (default: in place of BUNDLE)"
    )
    verb.add_argument(
        "--data", type=to_path, metavar="DIR", help="score the engine on this data folder, too"
    )
    verb.add_argument("--list", type=to_path, metavar="FILE", help="restrict --data to these stems")
    verb.add_argument(
        "--budget", metavar="LIST", help='such as "hse=-0.3,fa=+2" (default: the build\'s)'
    )
    verb.add_argument(
        "--builder", choices=("auto", "tensorrt", "tensorrt_rtx", "torch_tensorrt"), default="auto",
        help="what builds the engine: auto takes TensorRT, and on RTX cards TensorRT for RTX where "
        "it is installed (docs/rtx.md); torch_tensorrt builds from the torch module "
        "(docs/torch-tensorrt.md)",
    )  # fmt: skip
    verb.add_argument(
        "--weights", type=to_path, metavar="FILE",
        help="of the torch module, for --builder torch_tensorrt (default: the shipped ones)",
    )  # fmt: skip
    form = verb.add_mutually_exclusive_group()
    form.add_argument(
        PlanForm.VERSION_COMPATIBLE.flag, dest="form", action="store_const",
        const=PlanForm.VERSION_COMPATIBLE,
        help="later TensorRTs run the engine, too, as long as driver and GPU stay: an update of "
        "the package asks for no new engine. Larger by TensorRT's lean runtime, and may be slower; "
        "fused operators run as standard ones",
    )  # fmt: skip
    form.add_argument(
        PlanForm.WEIGHT_STRIPPED.flag, dest="form", action="store_const",
        const=PlanForm.WEIGHT_STRIPPED,
        help="the engine holds no weights, and takes those of the graph beside it in BUNDLE "
        "whenever it is opened: BUNDLE is smaller by them. Slower to open, as fast to run; "
        "TensorRT 10 and later",
    )  # fmt: skip
    verb.add_argument(
        "--no-plugins", action="store_true",
        help="run fused operators as standard ones, also where their plugins can be compiled",
    )  # fmt: skip
    verb.add_argument(
        "--dla", type=int, metavar="CORE",
        help="let this core of the Deep Learning Accelerator run what it can, the GPU the rest "
        "(docs/estimates.md)",
    )  # fmt: skip
    verb.add_argument(
        "--rebuild", action="store_true", help="build anew, whatever BUNDLE and the cache hold"
    )
    verb.add_argument(
        "--cache", type=to_path, metavar="DIR",
        help="folder for engines (default: $IRSTD_CACHE, else the user's)",
    )  # fmt: skip
    verb.add_argument("--no-cache", action="store_true", help="keep no engine but in the bundle")


def _finish(options: argparse.Namespace) -> Outcome:
    from irstd.compile.accuracy import parse_budget
    from irstd.compile.finish import finish_bundle
    from irstd.compile.finish_proof import Proof
    from irstd.compile.progress import Progress
    from irstd.errors import UsageError

    if options.data is None and (options.budget or options.list):
        raise UsageError(f"{'--budget' if options.budget else '--list'} needs --data DIR")
    if options.out is not None and options.out.suffix != ".irstd":
        raise UsageError(f"-o {options.out}: a bundle's name ends in .irstd")
    budget = parse_budget(options.budget) if options.budget else None
    found = finish_bundle(
        options.bundle,
        options.out,
        Proof(options.data, options.list, budget),
        rebuild=options.rebuild,
        builder=options.builder,
        weights=options.weights,
        form=options.form or PlanForm.WHOLE,
        plugins=not options.no_plugins,
        dla_core=options.dla,
        cache=_cache(options),
        progress=Progress(quiet=options.quiet),
    )
    return Outcome(found.to_dict(), describe_finished(found))


def _cache(options: argparse.Namespace) -> Path | None:
    return None if options.no_cache else options.cache or cache_dir()


def describe_finished(found: "Finished") -> str:
    """Return what `finish` did as lines for people."""
    from irstd.compile.summary import describe_verdict

    lines = [
        f"{found.path}: its engine {_ORIGINS[found.origin]}",
        f"engine {found.engine['digest']}: {found.device}",
    ]
    if found.parity is not None:
        lines.append(f"golden frames: {found.parity}")
    if found.median_ms is not None:
        lines.append(f"one inference: {found.median_ms:.2f} ms (median, this moment's clocks)")
    if found.verdict is not None:
        lines += describe_verdict(found.verdict)
    return "\n".join([*lines, f"sha256 {found.sha256}"])
