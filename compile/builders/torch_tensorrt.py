"""Torch-TensorRT: from a torch module straight to the plan that a bundle holds, without ONNX.

A second road to the same engine (docs/adr/0010-torch-tensorrt.md). It needs a GPU, torch with CUDA,
and the torch-tensorrt release of that torch. FP32 and FP16: INT8 takes the road through ONNX, whose
scales the bundle carries. Nothing is imported before it is used.
"""

import contextlib
import functools
import importlib
import importlib.metadata
import logging
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from irstd.compile.settings import Normalization
from irstd.errors import BuildError, DeviceError, MissingDependency, UsageError, one_line
from irstd.files import cache_dir
from irstd.runtime.tensorrt.api import version_of
from irstd.types import InputSpec, Precision

if TYPE_CHECKING:
    import torch
    from torch import nn

OLDEST = (2, 13)
OLDEST_PLUGINS = (10, 9)  # TensorRT's first release with kernels inside the plan
_MIB = 1 << 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TorchPlan:
    """A plan made by Torch-TensorRT.

    Attributes:
        plan: Serialized engine, without any header: `trtexec --loadEngine` takes it.
        library: Versions of Torch-TensorRT and of TensorRT.
        kernels: Fused operators that run in plugins inside the plan, each once.
    """

    plan: bytes
    library: str
    kernels: tuple[str, ...]


@dataclass(frozen=True)
class TorchPlanSettings:
    """How Torch-TensorRT builds.

    Attributes:
        precision: FP32 or FP16.
        workspace_mib: Most scratch memory of a layer, MiB; None: what the device has.
        optimization_level: 0 (builds fast) to 5 (searches longest).
        plugins: Whether fused operators run in their kernels; else they are written out as standard
            operators, computed in float32.
        timing_cache: File that measurements of kernels are kept in; None takes the user's cache.
    """

    precision: Precision = Precision.FP16
    workspace_mib: int | None = None
    optimization_level: int = 3
    plugins: bool = True
    timing_cache: Path | None = None

    def __post_init__(self) -> None:
        if self.precision not in (Precision.FP32, Precision.FP16):
            raise UsageError(
                f"Torch-TensorRT builds fp32 and fp16, not {self.precision.value}: build INT8 "
                "through ONNX, irstd-compile build and finish"
            )
        if not 0 <= self.optimization_level <= 5:
            raise UsageError(f"optimization level {self.optimization_level}; wanted 0 to 5")
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise UsageError(f"workspace {self.workspace_mib} MiB; wanted 1 or more")


def build_torch_plan(
    network: "nn.Module",
    spec: InputSpec,
    normalization: Normalization,
    settings: TorchPlanSettings | None = None,
    inputs: Sequence[NDArray[np.float32]] = (),
) -> TorchPlan:
    """Build the plan of a torch module for the GPU of this machine.

    The plan takes and returns what the engine of a bundle with this `spec` does: the preprocessed
    (1, C, H, W) float32 tensor, and (1, 1, H, W) float32 logits.

    Args:
        network: Maps a normalised (N, C, H, W) image to (N, 1, H, W) logits, in plain torch and the
            modules of `irstd.compile.operators`.
        spec: Size and preprocessing, as the bundle's manifest has them.
        normalization: What the network's training did to a frame.
        settings: How; None for the defaults.
        inputs: Preprocessed tensors, on which activations of an FP16 plan must stay in range.

    Raises:
        MissingDependency: torch_tensorrt is not installed, does not load, or is not the release of
            the torch that is; or a compiler for the plugins' kernels is missing.
        DeviceError: No GPU that torch can use.
        BuildError: An operator without a converter (named), activations beyond FP16, or TensorRT
            builds no engine.
        UsageError: Settings that this builder does not have.
    """
    settings = settings or TorchPlanSettings()
    torch, torch_tensorrt = load_torch_tensorrt()
    return _build(torch, torch_tensorrt, network, spec, normalization, settings, inputs)


@functools.cache
def load_torch_tensorrt() -> tuple[ModuleType, ModuleType]:
    """Import torch and Torch-TensorRT, and check that they belong together.

    Returns:
        The modules torch and torch_tensorrt.

    Raises:
        MissingDependency, DeviceError: As `build_torch_plan`.
    """
    check_versions(_installed("torch"), _installed("torch-tensorrt"))
    torch = importlib.import_module("torch")
    # Without a device its import fails too, at the first function with a default argument.
    if not torch.cuda.is_available():
        raise DeviceError(
            f"torch {torch.__version__} finds no CUDA device, and Torch-TensorRT builds on the one "
            "it builds for: install torch with CUDA and the driver, or build through ONNX"
        )
    try:
        with _standard_output_kept():
            return torch, importlib.import_module("torch_tensorrt")
    except Exception as error:  # it raises bare Exceptions, among others
        raise MissingDependency(
            f"torch_tensorrt is installed but does not load ({one_line(error)}); its release wants "
            f"{', '.join(_requirements()) or 'another TensorRT'}: "
            "pip install --force-reinstall torch-tensorrt"
        ) from error


def torch_tensorrt_version() -> str:
    """Return the installed version; "none" where there is none."""
    return _installed("torch-tensorrt") or "none"


def check_versions(torch: str | None, torch_tensorrt: str | None) -> None:
    """Check the installed versions of torch and torch-tensorrt against each other.

    Each release of torch-tensorrt is built against the torch of the same number.

    Args:
        torch: Version, None if not installed.
        torch_tensorrt: Version, None if not installed.

    Raises:
        MissingDependency: One is missing, they do not go together, or they are too old.
    """
    if torch_tensorrt is None:
        raise MissingDependency(
            "torch_tensorrt is not installed: pip install 'irstd-sdk[torch-tensorrt]', in an "
            "environment of its own, because it brings the torch that it was built against"
        )
    if torch is None:
        raise MissingDependency(
            "torch is not installed: pip install --force-reinstall torch-tensorrt"
        )
    ours, wanted = _release(torch), _release(torch_tensorrt)
    if ours != wanted:
        raise MissingDependency(
            f"torch-tensorrt {torch_tensorrt} goes with torch {wanted[0]}.{wanted[1]}, installed "
            f"is {torch}: pip install 'torch=={wanted[0]}.{wanted[1]}.*', or "
            f"'torch-tensorrt=={ours[0]}.{ours[1]}.*'"
        )
    if wanted < OLDEST:
        raise MissingDependency(
            f"torch-tensorrt {torch_tensorrt}; wanted {OLDEST[0]}.{OLDEST[1]} or later, "
            "the first whose calls were checked: pip install -U torch-tensorrt"
        )


def _build(
    torch: ModuleType,
    torch_tensorrt: ModuleType,
    network: "nn.Module",
    spec: InputSpec,
    normalization: Normalization,
    settings: TorchPlanSettings,
    inputs: Sequence[NDArray[np.float32]],
) -> TorchPlan:
    from irstd.compile.builders.deployed_module import Deployed, refuse_large_activations

    tensorrt = importlib.import_module("tensorrt")
    if settings.plugins and _has_operators(network):
        _prepare_plugins(torch, torch_tensorrt, tensorrt)
    if settings.precision is Precision.FP16 and inputs:
        full = Deployed(network, spec, normalization, Precision.FP32)
        refuse_large_activations(full, [torch.from_numpy(np.array(x)) for x in inputs])
    deployed = Deployed(network, spec, normalization, settings.precision)
    shape = (1, spec.channels, spec.height, spec.width)
    program, kernels = export_program(deployed, shape, plugins=settings.plugins)
    timing_cache = settings.timing_cache or cache_dir() / "torch_tensorrt" / "timing.cache"
    timing_cache.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _standard_output_kept():
            plan = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
                program,
                arg_inputs=[torch_tensorrt.Input(shape, dtype=torch.float32)],
                device=torch_tensorrt.Device(gpu_id=torch.cuda.current_device()),
                disable_tf32=settings.precision is Precision.FP32,
                workspace_size=(settings.workspace_mib or 0) * _MIB,
                optimization_level=settings.optimization_level,
                # A part that runs in torch would not be in the plan.
                require_full_compilation=True,
                min_block_size=1,
                timing_cache_path=str(timing_cache),
                offload_module_to_cpu=True,  # where it is already
            )
    except Exception as error:  # of converters, of TensorRT's bindings, of torch
        raise BuildError(_why(error)) from error
    if not plan:
        raise BuildError("Torch-TensorRT built nothing, and did not say why")
    library = f"torch-tensorrt {torch_tensorrt.__version__}, TensorRT {version_of(tensorrt)}"
    return TorchPlan(bytes(plan), library, kernels)


def export_program(
    deployed: "nn.Module", shape: tuple[int, ...], *, plugins: bool
) -> tuple["torch.export.ExportedProgram", tuple[str, ...]]:
    """Return a module as `torch.export` sees it, and the fused operators that are calls in it.

    Args:
        deployed: Maps one float32 tensor to one.
        shape: Of the tensor.
        plugins: Whether fused operators are calls of `torch.ops.irstd`, or standard operators.

    Raises:
        BuildError: torch cannot export it.
    """
    import torch

    from irstd.compile.operators.torch_node import replaced
    from irstd.compile.operators.torch_ops import as_custom_operator, as_standard_operators

    replacement = as_custom_operator if plugins else as_standard_operators
    try:
        with replaced(replacement), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about itself
            program = torch.export.export(deployed, (torch.zeros(shape),), strict=False)
    except Exception as error:  # torch reports an unsupported module with many exception types
        raise BuildError(
            f"{type(deployed).__name__}: torch.export refuses it ({one_line(error)})"
        ) from error
    calls = {
        str(node.target).split(".")[1]
        for node in program.graph.nodes
        if node.op == "call_function" and str(node.target).startswith("irstd.")
    }
    return program, tuple(sorted(calls))


def _prepare_plugins(torch: ModuleType, torch_tensorrt: ModuleType, tensorrt: ModuleType) -> None:
    """Register the plugins of the fused operators and their converters."""
    from irstd.compile.builders.torch_tensorrt_operators import (
        register_converters,
        register_plugins,
    )

    version = version_of(tensorrt)
    if (version.major, version.minor) < OLDEST_PLUGINS or not _knows_plugins(torch_tensorrt):
        raise MissingDependency(
            f"TensorRT {version} with this Torch-TensorRT has no plugins with kernels inside the "
            "plan (10.9 or later has, but for 10.14): update it, or build with plugins=False"
        )
    plugin = importlib.import_module("tensorrt.plugin")
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    register_plugins(plugin, properties.multi_processor_count)
    register_converters(torch_tensorrt, torch, plugin)


def _knows_plugins(torch_tensorrt: ModuleType) -> bool:
    return bool(torch_tensorrt.ENABLED_FEATURES.qdp_plugin)


def _has_operators(network: "nn.Module") -> bool:
    from irstd.compile.operators.haar_gate import HaarGate
    from irstd.compile.operators.ms_deform_attn import MSDeformAttn
    from irstd.compile.operators.spectral_split import SpectralSplit

    return any(
        isinstance(item, HaarGate | SpectralSplit | MSDeformAttn) for item in network.modules()
    )


def _why(error: BaseException) -> str:
    """Return what stopped a build: the first cause, which names the operator."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = one_line(cause)
    if "not currently supported" in text or type(cause).__name__ == "UnsupportedOperatorException":
        return f"Torch-TensorRT has no converter: {text}; build through ONNX, irstd-compile build"
    return f"Torch-TensorRT does not build it: {text}"


@contextlib.contextmanager
def _standard_output_kept() -> Iterator[None]:
    """Send what the library prints to standard error: standard output is for one JSON object."""
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _requirements() -> list[str]:
    """Return which torch and TensorRT the installed torch-tensorrt says that it wants."""
    try:
        listed: Any = importlib.metadata.requires("torch-tensorrt") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [item for item in listed if re.match(r"(torch|tensorrt)\b(?!-)", item)]


def _release(version: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)
