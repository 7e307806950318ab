"""The devices that a bundle can be built for, as data."""

import dataclasses

from irstd import devices
from irstd.devices import Device
from irstd.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Target:
    """One device family.

    Attributes:
        name: What `--target` takes.
        description: The boards or cards it stands for.
        engines: Session names in order of preference.
        compute_capability: Of the GPU, (major, minor); None for a CPU.
        memory_gb: Of the device; None where it varies.
        int8_form: "cpu" (unsigned activations) or "nvidia" (symmetric signed).
        portable: Whether the engine is built on the device itself, from the graph in the bundle.
        device: The board, or the card that stands for the series; None for a CPU.
        board: Part of the name that the device tree of such a board states, such as "Orin Nano" of
            "NVIDIA Jetson Orin Nano Developer Kit"; None off boards.
    """

    name: str
    description: str
    engines: tuple[str, ...]
    compute_capability: tuple[int, int] | None
    memory_gb: int | None
    int8_form: str
    portable: bool
    device: Device | None = None
    board: str | None = None


def _jetson(name: str, board: str, device: Device, capability: tuple[int, int] = (8, 7)) -> Target:
    return Target(
        name, device.product, ("tensorrt",), capability, device.memory_gb, "nvidia",
        portable=True, device=device, board=board,
    )  # fmt: skip


def _rtx(
    name: str, series: str, capability: tuple[int, int], device: Device | None = None
) -> Target:
    """Return the target of a series, whose cards have different memory."""
    engines = ("tensorrt_rtx", "tensorrt")
    return Target(name, series, engines, capability, None, "nvidia", portable=True, device=device)


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target(
            "cpu",
            "any x86-64 or Arm CPU",
            ("openvino", "onnxruntime"),
            None,
            None,
            "cpu",
            portable=False,
        ),
        _jetson("jetson-orin-nano", "Orin Nano", devices.ORIN_NANO_8GB),
        _jetson("jetson-orin-nano-4gb", "Orin Nano", devices.ORIN_NANO_4GB),
        _jetson("jetson-orin-nx", "Orin NX", devices.ORIN_NX_16GB),
        _jetson("jetson-orin-nx-8gb", "Orin NX", devices.ORIN_NX_8GB),
        _jetson("jetson-agx-orin", "AGX Orin", devices.AGX_ORIN_64GB),
        _jetson("jetson-agx-orin-32gb", "AGX Orin", devices.AGX_ORIN_32GB),
        _jetson("jetson-thor", "Thor", devices.THOR_T5000, (11, 0)),
        _rtx("rtx-30", "GeForce RTX 30 series", (8, 6), devices.RTX_3060),
        _rtx("rtx-40", "GeForce RTX 40 series", (8, 9), devices.RTX_4060),
        _rtx("rtx-50", "GeForce RTX 50 series", (12, 0), devices.RTX_5070),
    )
}


def find_target(name: str) -> Target:
    """Return the target of that name.

    Raises:
        UsageError: There is none; the message lists them.
    """
    if name not in TARGETS:
        raise UsageError(f"unknown target {name!r}; one of {', '.join(TARGETS)}")
    return TARGETS[name]
