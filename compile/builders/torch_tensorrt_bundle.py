"""The engine of a bundle, built by Torch-TensorRT from the weights that the bundle came from.

A bundle holds graphs, no torch module: the weights are read again, and its golden frames tell
whether they are the same.
"""

import dataclasses
import functools
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from irstd.bundle import Bundle
from irstd.compile.builders.tensorrt import MIB, BuiltPlan, PlanSettings
from irstd.compile.builders.torch_tensorrt import (
    TorchPlanSettings,
    build_torch_plan,
    torch_tensorrt_version,
)
from irstd.compile.golden import Golden
from irstd.compile.networks import NETWORKS
from irstd.compile.settings import Normalization
from irstd.errors import BundleCorrupt, UsageError
from irstd.files import sha256_of_file
from irstd.types import Precision

if TYPE_CHECKING:
    from irstd.compile.checkpoint import Checkpoint

NAME = "torch_tensorrt"
_WEIGHTS_GREY_LEVELS = 255  # what our own weights files count their normalisation in


@dataclasses.dataclass(frozen=True)
class TorchSource:
    """A torch module in place of the bundle's deployed graph.

    Attributes:
        bundle: Says network, input, precision and normalisation.
        weights: File of the network's weights.
    """

    bundle: Bundle
    weights: Path

    @functools.cached_property
    def flags(self) -> tuple[str, ...]:
        """What decides which plan is built, each as "name=value": for its key."""
        return (
            f"builder={NAME}",
            f"torch_tensorrt={torch_tensorrt_version()}",
            f"weights={sha256_of_file(self.weights)}",
        )

    def build(self, settings: PlanSettings) -> BuiltPlan:
        """Build the plan.

        Args:
            settings: Workspace and optimisation level are followed; the rest is the parser's.

        Raises:
            CheckpointError: The weights are not of the bundle's network.
            IrstdError: As `build_torch_plan`.
        """
        from irstd.compile.checkpoint import load_checkpoint

        manifest = self.bundle.manifest
        begun = time.monotonic()
        eps = manifest.resolved.get("input_norm_eps")
        known = {} if eps is None else {"input_norm_eps": float(eps)}
        checkpoint = load_checkpoint(manifest.network, self.weights, **known)
        limit = settings.workspace_limit
        with TemporaryDirectory() as folder:
            timing_cache = Path(folder) / "timing.cache"
            built = build_torch_plan(
                checkpoint.module,
                manifest.input,
                normalization_of(self.bundle, checkpoint),
                TorchPlanSettings(
                    precision=manifest.precision,
                    workspace_mib=None if limit is None else max(1, limit // MIB),
                    optimization_level=settings.optimization_level,
                    timing_cache=timing_cache,
                ),
                golden_inputs(self.bundle),
            )
            timing = timing_cache.read_bytes() if timing_cache.is_file() else b""
        notes = (f"built by {built.library}",)
        seconds = time.monotonic() - begun
        return BuiltPlan(built.plan, timing, built.library, (), (), 0, notes, seconds)


def torch_source(bundle: Bundle, weights: Path | None) -> TorchSource:
    """Return what Torch-TensorRT builds a bundle's engine from.

    Args:
        bundle: One of a named network, in FP32 or FP16.
        weights: Its weights; None takes the shipped ones.

    Raises:
        UsageError: The bundle came from an ONNX file or is INT8, or no weights are shipped.
    """
    manifest = bundle.manifest
    if manifest.network not in NETWORKS:
        raise UsageError(
            f"{bundle.path}: made from the ONNX file {manifest.network!r}, which has no torch "
            "module; leave --builder out"
        )
    if manifest.precision not in (Precision.FP32, Precision.FP16):
        raise UsageError(
            f"{bundle.path}: {manifest.precision.value}, and Torch-TensorRT builds fp32 and fp16; "
            "leave --builder out, or build the bundle with --precision fp16"
        )
    if weights is None:
        weights = Path(__file__).parents[1] / "weights" / f"{manifest.network}.safetensors"
        if not weights.is_file():
            raise UsageError(
                f"no weights of {manifest.network} are shipped: give those that the bundle was "
                "built from with --weights FILE"
            )
    return TorchSource(bundle, weights)


def normalization_of(bundle: Bundle, checkpoint: "Checkpoint") -> Normalization:
    """Return what training did to a frame, in grey levels of the bundle's bit depth.

    Raises:
        BundleCorrupt: Neither the weights nor the bundle say.
    """
    given: Any = bundle.manifest.resolved.get("normalize")
    if isinstance(given, Mapping):
        try:
            return Normalization(
                tuple(map(float, given["mean"])),
                tuple(map(float, given["std"])),
                bool(given["per_frame_max"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BundleCorrupt(f"{bundle.path}: normalize is {given!r}") from error
    if checkpoint.normalize is None:
        raise BundleCorrupt(
            f"{bundle.path}: neither it nor the weights say how training normalised frames"
        )
    mean, std = checkpoint.normalize
    depth = bundle.manifest.input.bit_depth
    return Normalization((mean,), (std,)).scaled(((1 << depth) - 1) / _WEIGHTS_GREY_LEVELS)


def golden_inputs(bundle: Bundle) -> list[Any]:
    """Return the tensors of the bundle's golden frames."""
    from irstd.compile.frame_sets import input_tensors
    from irstd.runtime.preprocess import Preprocessor

    frames = Golden.read(bundle).frames
    return [x.copy() for x in input_tensors(frames, Preprocessor(bundle.manifest.input))]
