"""How long a graph would take on a device that is not at hand: an estimate, never a measurement.

Each layer takes as long as the slower of its arithmetic and its memory traffic (the roofline), plus
what starting it costs. Arithmetic runs at the peak times the share of it that the layer's shape can
use:
- channels are padded to the vectors that the hardware multiplies;
- work is dealt out in tiles: with fewer tiles than processors, or a last round that is not full,
  some of them wait;
- each result has a cost besides its products (addresses, loading the first operands, storing it),
  which short sums do not hide: `idle_products` products' time;
- even the inner loop of long sums keeps up only a `sustained` share of the peak.

The same function is checked against layers measured on a CPU: scripts/check_estimate.py.
"""

import dataclasses
import math
from collections.abc import Mapping

from irstd.compile.estimate_layers import Cost, Layer
from irstd.devices import Device, PowerMode

# Between two kernels of a CUDA graph the GPU does nothing for 0.5 us (NVIDIA, "Getting Started with
# CUDA Graphs", 2019: 3.4 us a kernel of 2.9 us, on a V100 at 1380 MHz); its front end runs at the
# GPU's clock.
_GAP_S, _GAP_MHZ = 0.5e-6, 1380.0
# Vectors of tensor core instructions, as channels in and out (PTX ISA, mma.m16n8k8, m16n8k16
# and m16n8k32).
_VECTORS = {"int8": (32, 8), "fp16": (16, 8)}
_TF32_VECTORS, _FP32_VECTORS = (8, 8), (1, 1)  # CUDA cores multiply one by one
# The smallest tile of results that an implicit matrix product gives one SM.
_TILE_PIXELS, _TILE_CHANNELS = 64, 32


@dataclasses.dataclass(frozen=True)
class Machine:
    """What a processor can do at most, and how its work is dealt out.

    Attributes:
        name: For people.
        macs_per_s: Multiply-adds a second by precision.
        operations_per_s: Other arithmetic.
        bandwidth: Of the memory, bytes a second.
        overhead_s: What starting one layer costs.
        vectors: By precision, how many input and output channels are multiplied at once.
        processors: That share one layer.
        tile: Pixels and channels of the smallest piece of a layer that one processor takes.
        idle_products: Products that could have been computed in what each result costs besides.
        sustained: Share of the peak that long sums keep up, in (0, 1].
        cache_bytes: Of values that may stay near the processor from one layer to the next.
        cache_bandwidth: Of that cache, bytes a second; 0 where it is not published: then values are
            taken to come from memory.
    """

    name: str
    macs_per_s: Mapping[str, float]
    operations_per_s: float
    bandwidth: float
    overhead_s: float
    vectors: Mapping[str, tuple[int, int]]
    processors: int = 1
    tile: tuple[int, int] = (1, 1)
    idle_products: float = 0.0
    sustained: float = 1.0
    cache_bytes: int = 0
    cache_bandwidth: float = 0.0


@dataclasses.dataclass(frozen=True)
class LayerEstimate:
    """How long one layer would take.

    Attributes:
        layer: Its cost.
        compute_s: Of its arithmetic alone.
        memory_s: Of its memory traffic alone.
        overhead_s: Of starting it.
        usable: Share of the peak that its shape can use, in (0, 1]; 1 for a layer without products.
    """

    layer: Layer
    compute_s: float
    memory_s: float
    overhead_s: float
    usable: float

    @property
    def seconds(self) -> float:
        """What the layer is estimated to take."""
        return max(self.compute_s, self.memory_s) + self.overhead_s

    @property
    def bottleneck(self) -> str:
        """What takes most of it: "compute", "memory" or "launch"."""
        parts = {"compute": self.compute_s, "memory": self.memory_s, "launch": self.overhead_s}
        return max(parts, key=lambda part: parts[part])


@dataclasses.dataclass(frozen=True)
class Estimate:
    """How long one inference would take. An estimate.

    Attributes:
        machine: What it is for.
        layers: In graph order.
        floor_s: What no engine can go below: all products at the full peak, and what the caches
            cannot hold of weights, image and result through memory once.
        unknown: Operators that are counted by their bytes alone, so that the estimate is too low.
    """

    machine: str
    layers: tuple[LayerEstimate, ...]
    floor_s: float
    unknown: Mapping[str, int]

    @property
    def seconds(self) -> float:
        """The sum over the layers."""
        return math.fsum(layer.seconds for layer in self.layers)

    @property
    def shares(self) -> dict[str, float]:
        """Return the part of the time by bottleneck, in [0, 1]."""
        total = self.seconds or 1.0
        shares = dict.fromkeys(("compute", "memory", "launch"), 0.0)
        for row in self.layers:
            busy = "compute" if row.compute_s >= row.memory_s else "memory"
            shares[busy] += max(row.compute_s, row.memory_s) / total
            shares["launch"] += row.overhead_s / total
        return shares

    @property
    def bottleneck(self) -> str:
        """The part that takes longest."""
        shares = self.shares
        return max(shares, key=lambda part: shares[part])


def estimate_cost(cost: Cost, machine: Machine) -> Estimate:
    """Estimate one inference.

    Args:
        cost: From `graph_cost`.
        machine: From `machine_of`, or measured.
    """
    layers = tuple(estimate_layer(layer, machine) for layer in cost.layers)
    products = math.fsum(row.macs / machine.macs_per_s[row.precision] for row in cost.layers)
    fetched = max(0, cost.compulsory_bytes - machine.cache_bytes)
    floor_s = max(products, fetched / machine.bandwidth)
    return Estimate(machine.name, layers, floor_s, cost.unknown)


def estimate_layer(layer: Layer, machine: Machine) -> LayerEstimate:
    """Estimate one layer."""
    usable = usable_share(layer, machine)
    products_s = layer.macs / (machine.macs_per_s[layer.precision] * usable)
    is_near = layer.moved_bytes <= machine.cache_bytes and machine.cache_bandwidth
    bandwidth = machine.cache_bandwidth if is_near else machine.bandwidth
    return LayerEstimate(
        layer,
        compute_s=products_s + layer.operations / machine.operations_per_s,
        memory_s=layer.moved_bytes / bandwidth,
        overhead_s=machine.overhead_s,
        usable=usable,
    )


def usable_share(layer: Layer, machine: Machine) -> float:
    """Return the share of the peak that the shape of a layer can use, in (0, 1]."""
    if not layer.macs:
        return 1.0
    inwards, outwards = machine.vectors[layer.precision]
    padded = _padding(layer.in_channels, inwards) * _padding(layer.out_channels, outwards)
    pixels, channels = machine.tile
    tiles = math.ceil(layer.pixels / pixels) * math.ceil(layer.out_channels / channels)
    rounds = math.ceil(tiles / machine.processors)
    dealt = tiles / (rounds * machine.processors)
    hidden = layer.reduction / (layer.reduction + machine.idle_products)
    return padded * dealt * hidden * machine.sustained


def _padding(channels: int, vector: int) -> float:
    return channels / (math.ceil(channels / vector) * vector)


def machine_of(device: Device, mode: PowerMode, *, tf32: bool = False) -> Machine:
    """Return a GPU as a machine, from its published peaks.

    Args:
        device: A board or card.
        mode: One of its power modes.
        tf32: Whether float32 products may run on tensor cores. TensorRT lets them by default; the
            engines of this SDK do not, and keep all bits.
    """
    peaks = {
        "int8": device.peak_tops("int8", mode),
        "fp16": device.peak_tops("fp16", mode),
        "fp32": device.peak_tops("tf32" if tf32 else "fp32", mode),
    }
    return Machine(
        name=f"{device.product}, {mode.name}",
        macs_per_s={precision: tops * 1e12 / 2 for precision, tops in peaks.items()},
        operations_per_s=device.peak_tops("fp32", mode) * 1e12 / 2,
        bandwidth=mode.bandwidth_gb_s * 1e9,
        overhead_s=_GAP_S * _GAP_MHZ / mode.gpu_mhz,
        vectors={**_VECTORS, "fp32": _TF32_VECTORS if tf32 else _FP32_VECTORS},
        processors=mode.sms,
        tile=(_TILE_PIXELS, _TILE_CHANNELS),
        cache_bytes=device.l2_bytes,
    )
