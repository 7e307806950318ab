"""The compiler: from a checkpoint or an ONNX graph to a bundle.

    from irstd.compile import build_bundle
    result = build_bundle("acm", "acm.irstd", precision="int8", data="frames/")

Importing this costs nothing; onnx is needed by a call, torch only for checkpoints and training.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from irstd.cli import EXTRAS
from irstd.compile.networks import NETWORKS, NetworkSpec
from irstd.errors import MissingDependency, UsageError
from irstd.targets import TARGETS, Target

if TYPE_CHECKING:
    from irstd.compile.pipeline import BuildResult

__all__ = ["NETWORKS", "TARGETS", "NetworkSpec", "Target", "build_bundle"]


def build_bundle(
    source: str | Path,
    out: str | Path,
    *,
    cache: Path | None = None,
    use_cache: bool = True,
    **flags: Any,
) -> "BuildResult":
    """Build a bundle; the Python form of `irstd-compile build`.

    Args:
        source: A network name, or the path of an .onnx or .yaml file.
        out: The bundle to write.
        cache: Folder for stage results; None takes what the .yaml file says, else `$IRSTD_CACHE`
            or the user's cache.
        use_cache: False computes every stage anew.
        **flags: The long flags of the command with `_` for `-`, as text or as what they stand for:
            target, precision, weights, imgsz, normalize, output, bit_depth, fit, data, list,
            verify_data, verify_list, calibration, int8_form, budget, keep, seed.

    Returns:
        The bundle's path and hash, its manifest, the verdict and the whole report.

    Raises:
        UsageError: An unknown flag or a value that is not valid.
        MissingDependency: onnx is not installed.
        IrstdError: See irstd.compile.pipeline.run_build.
    """
    from irstd.compile.flags import resolve

    try:
        from irstd.compile.pipeline import run_build
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise  # a defect, to be seen whole
        install = f"pip install 'irstd-sdk[{EXTRAS[error.name]}]'"
        raise MissingDependency(f"building needs {error.name}: {install}") from error
    given = {name.replace("_", "-"): value for name, value in flags.items()}
    if not use_cache:
        given["no-cache"] = True
    request = resolve(str(source), {**given, "cache": cache})
    if request.dry_run:
        raise UsageError(f"{source}: dry-run is for the command, which says what would be built")
    return run_build(request.settings, Path(out), request.cache_folder)
