"""The compiler: from a checkpoint or an ONNX graph to a bundle.

    from irstd.compile import build_bundle
    result = build_bundle("acm", "acm.irstd", precision="int8", data="frames/")

Importing this costs nothing; onnx is needed by a call, torch only for checkpoints and training.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from irstd.compile.networks import NETWORKS, NetworkSpec
from irstd.files import cache_dir
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
        cache: Folder for stage results; None takes `$IRSTD_CACHE` or the user's cache.
        use_cache: False computes every stage anew.
        **flags: The long flags of the command with `_` for `-`, as text or as what they stand for:
            target, precision, weights, imgsz, normalize, output, bit_depth, fit, data, list,
            verify_data, verify_list, calibration, int8_form, budget, keep, seed.

    Returns:
        The bundle's path and hash, its manifest, the verdict and the whole report.

    Raises:
        UsageError: An unknown flag or a value that is not valid.
        IrstdError: See irstd.compile.pipeline.run_build.
    """
    from irstd.compile.pipeline import run_build
    from irstd.compile.settings import resolve

    settings = resolve(str(source), {name.replace("_", "-"): v for name, v in flags.items()})
    folder = (cache or cache_dir()) if use_cache else None
    return run_build(settings, Path(out), folder)
