"""The devices that a bundle can be built for, as data."""

import dataclasses

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
    """

    name: str
    description: str
    engines: tuple[str, ...]
    compute_capability: tuple[int, int] | None
    memory_gb: int | None
    int8_form: str
    portable: bool


def _jetson(
    name: str, description: str, memory_gb: int, capability: tuple[int, int] = (8, 7)
) -> Target:
    return Target(name, description, ("tensorrt",), capability, memory_gb, "nvidia", portable=True)


def _rtx(name: str, description: str, capability: tuple[int, int]) -> Target:
    engines = ("tensorrt_rtx", "tensorrt")
    return Target(name, description, engines, capability, None, "nvidia", portable=True)


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
        _jetson("jetson-orin-nano", "Jetson Orin Nano 8 GB", 8),
        _jetson("jetson-orin-nano-4gb", "Jetson Orin Nano 4 GB", 4),
        _jetson("jetson-orin-nx", "Jetson Orin NX 16 GB", 16),
        _jetson("jetson-orin-nx-8gb", "Jetson Orin NX 8 GB", 8),
        _jetson("jetson-agx-orin", "Jetson AGX Orin 64 GB", 64),
        _jetson("jetson-agx-orin-32gb", "Jetson AGX Orin 32 GB", 32),
        _jetson("jetson-thor", "Jetson Thor", 128, (11, 0)),
        _rtx("rtx-30", "GeForce RTX 30 series", (8, 6)),
        _rtx("rtx-40", "GeForce RTX 40 series", (8, 9)),
        _rtx("rtx-50", "GeForce RTX 50 series", (12, 0)),
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
