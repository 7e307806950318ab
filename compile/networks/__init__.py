"""The networks this SDK knows: facts here, torch only when one is built.

A network is one file, one entry here and one row in tests/compile/test_networks.py.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """Facts about one network.

    Attributes:
        name: Key in NETWORKS.
        in_channels: Image channels of the default build, 1 or 3.
        default_size_hw: Input size that a build uses unless told otherwise, px.
        stride_px: Height and width must be multiples of it.
        parameters: Executed parameters at the default channels.
        macs: Multiply-accumulates of convolutions and matrix products at the default size.
        global_pooling: Whether a gate sees the whole image, so that tiles and padding change it.
        dead_keys: Prefixes in public checkpoints of modules that never run.
        build: Makes the torch module from keywords in_channels, norm, input_norm_eps.
    """

    name: str
    in_channels: int
    default_size_hw: tuple[int, int]
    stride_px: int
    parameters: int
    macs: int
    global_pooling: bool
    dead_keys: tuple[str, ...]
    build: "Callable[..., nn.Module]"


def _build_acm(**options: object) -> "nn.Module":
    from irstd.compile.networks.acm import ACM

    return ACM(**options)  # type: ignore[arg-type]


def _build_alcnet(**options: object) -> "nn.Module":
    from irstd.compile.networks.alcnet import ALCNet

    return ALCNet(**options)  # type: ignore[arg-type]


NETWORKS: dict[str, NetworkSpec] = {
    "acm": NetworkSpec(
        name="acm",
        in_channels=1,
        default_size_hw=(256, 256),
        stride_px=16,
        parameters=397_823,
        macs=343_294_592,
        global_pooling=True,
        dead_keys=(),
        build=_build_acm,
    ),
    "alcnet": NetworkSpec(
        name="alcnet",
        in_channels=1,
        default_size_hw=(256, 256),
        stride_px=16,
        parameters=426_961,
        macs=295_076_480,
        global_pooling=True,
        dead_keys=("uplayer1.", "uplayer2."),
        build=_build_alcnet,
    ),
}
