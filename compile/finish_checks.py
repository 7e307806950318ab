"""Is a bundle for this device? Needs neither onnx nor torch."""

from irstd.bundle import Bundle
from irstd.engine_record import EngineDevice
from irstd.errors import BundleMismatch, UsageError
from irstd.jetpack import DLA_AGAIN_ON, DLA_TAKES_QDQ, supports_dla
from irstd.runtime.tensorrt.api import Version
from irstd.targets import TARGETS, Target, find_target
from irstd.types import Precision

# Of its nominal memory a board shows the system 0.86 and more: 30697 of 32 GB on AGX Orin, 7486 MB
# of 8 GB on Orin Nano with JetPack 7.2, 3602 MB of 4 GB.
_MEMORY_SHARE = 0.8
_SESSION = "tensorrt"


def check_portable(bundle: Bundle) -> Target:
    """Return the target of a bundle whose engine is built on the device.

    Raises:
        BundleMismatch: The bundle brings its engine.
    """
    target = find_target(bundle.manifest.target)
    if not target.portable:
        raise BundleMismatch(
            f"{bundle.path}: built for {target.name}, which brings its engine: there is nothing to "
            f"finish; run it: irstd-run {bundle.path} SOURCE"
        )
    return target


def check_target(bundle: Bundle, device: EngineDevice, memory_bytes: int) -> Target:
    """Refuse a bundle that was built for another device.

    Args:
        bundle: What is to be finished.
        device: This one.
        memory_bytes: Of the GPU, which on a Jetson is the board's.

    Returns:
        The bundle's target.

    Raises:
        BundleMismatch: Names both sides, and the command that mends it.
    """
    target = check_portable(bundle)
    if _SESSION not in target.engines:
        raise BundleMismatch(f"{bundle.path}: {target.name} does not run TensorRT")
    fitting = fitting_targets(device, memory_bytes)
    if target.name in fitting:
        return target
    there = f"built for {target.name} ({target.description})"
    found = f"{device.board or device.gpu}, sm_{device.architecture}, {memory_bytes / 1e9:.1f} GB"
    command = (
        f"irstd-compile build ... --target {fitting[0]}"
        if fitting
        else "this SDK knows no target for it"
    )
    raise BundleMismatch(f"{bundle.path}: {there}; this is {found}: {command}")


def check_dla(bundle: Bundle, target: Target, core: int, version: Version) -> None:
    """Refuse a Deep Learning Accelerator that is not there or does not take the graph.

    Args:
        bundle: What is to be finished.
        target: Of the bundle and of this device.
        core: That is asked for.
        version: Of this TensorRT.

    Raises:
        UsageError: Says what there is.
    """
    cores = 0 if target.device is None else target.device.dla_cores
    if not 0 <= core < cores:
        found = f"core {' or '.join(map(str, range(cores)))}" if cores else "none"
        raise UsageError(f"--dla {core}: there is no such core; {target.name} has {found}")
    numbers = (version.major, version.minor, version.patch)
    if not supports_dla(numbers):
        raise UsageError(
            f"--dla {core}: TensorRT {version} does not build for it; up to 10.7 does, and 11.4.1 "
            f"and later on {DLA_AGAIN_ON}"
        )
    precision = bundle.manifest.precision
    if precision is Precision.FP32 or (precision is Precision.INT8 and numbers < DLA_TAKES_QDQ):
        raise UsageError(
            f"--dla {core}: with TensorRT {version} it runs FP16 graphs, this one is "
            f"{precision.value.upper()}; irstd-compile build ... --precision fp16"
        )


def fitting_targets(device: EngineDevice, memory_bytes: int) -> list[str]:
    """Return the targets that a device is, the most likely first.

    The compute capability must be equal. Of several, as there are for Orin, those count whose
    `board` is in this one's name; where none is, as on some carrier boards, all that its memory
    suffices for.
    """
    capable = [
        target for target in TARGETS.values()
        if target.compute_capability == divmod(device.architecture, 10)
    ]  # fmt: skip
    board = device.board.lower()
    named = [target for target in capable if target.board and target.board.lower() in board]
    roomy = [
        target for target in named or capable
        if not target.memory_gb or memory_bytes >= _MEMORY_SHARE * target.memory_gb * 1e9
    ]  # fmt: skip
    return [t.name for t in sorted(roomy, key=lambda t: -(t.memory_gb or 0))]
