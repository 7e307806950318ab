"""The operators as quickly deployable plugins: which nodes they are, and the kernel of each.

HaarGate                x, weight, bias -> out
SpectralSplitLow        x, cutoff -> low                       maps up to 64 x 64 px, or else
SpectralSplitRows       x -> spectrum
SpectralSplitColumns    spectrum, cutoff -> spectrum
SpectralSplitRowsBack   x, spectrum -> low
SpectralSplitGate       x, low, gate_weight, gate_bias, gamma -> out
MSDeformAttnRecords     value; level_hw, d_head -> records
MSDeformAttnGather      records, offsets, logits; level_hw, query_hw, d_head -> out
MSDeformAttnGatherAt    records, offsets, logits, reference_points; level_hw, d_head -> out
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from irstd.errors import BuildError
from irstd.runtime.kernels.cpu_library import cpu_library
from irstd.runtime.kernels.cuda.compiler import PTX_ARCHITECTURE, build_ptx
from irstd.runtime.kernels.cuda.launch import Launch
from irstd.runtime.kernels.ms_deform_attn.cuda import Number, Plan, make_plan
from irstd.runtime.kernels.ms_deform_attn.shapes import Shapes
from irstd.runtime.kernels.spectral_split.cuda import SIDES_PX
from irstd.runtime.kernels.tensorrt.quick import Attributes, Kernel, Node, Shape
from irstd.runtime.kernels.tensorrt.quick_source import (
    GATHER_KERNEL,
    PAD_KERNEL,
    compile_ptx,
    gather_source,
    pad_source,
)

HALF_BYTES, FLOAT_BYTES = 2, 4
# A map that one block transforms takes more shared memory than an engine gives beyond this.
MOST_LOW_PX = 64 * 64


def quick_nodes(multiprocessors: int, architecture: int = PTX_ARCHITECTURE) -> list[Node]:
    """Return every node, for `quick.register`.

    Args:
        multiprocessors: Of the GPU that the engine is for.
        architecture: Ten times the compute capability that the PTX asks for; newer GPUs run it.
    """
    made = _Made(multiprocessors, architecture)
    queried = ("level_hw", "query_hw", "d_head")
    gathered = ("records", "offsets", "logits")
    gated = ("x", "low", "gate_weight", "gate_bias", "gamma")
    return [
        Node("HaarGate", ("x", "weight", "bias"), (), None, made.haar_gate),
        Node("SpectralSplitLow", ("x", "cutoff"), (), None, made.low),
        Node("SpectralSplitRows", ("x",), (), None, made.rows),
        Node("SpectralSplitColumns", ("spectrum", "cutoff"), (), None, made.columns),
        Node("SpectralSplitRowsBack", ("x", "spectrum"), (), None, made.rows_back),
        Node("SpectralSplitGate", gated, (), None, made.gate),
        Node(
            "MSDeformAttnRecords", ("value",), ("level_hw", "d_head"), _records_shape, made.records
        ),
        Node("MSDeformAttnGather", gathered, queried, _out_shape, made.gather),
        Node(
            "MSDeformAttnGatherAt",
            (*gathered, "reference_points"),
            ("level_hw", "d_head"),
            _out_shape,
            made.gather,
        ),
    ]


@dataclass(frozen=True)
class _Made:
    """The kernels of the nodes, for one GPU."""

    multiprocessors: int
    architecture: int

    def haar_gate(self, shapes: Sequence[Shape], half: bool, _: Attributes) -> Kernel:
        x, weight, bias = shapes
        if len(x) != 4 or weight != (4, 2, 7, 7) or bias != (4,):
            raise BuildError(
                f"HaarGate: got {x}, {weight}, {bias}; wanted (N, C, H, W), (4, 2, 7, 7), (4,)"
            )
        images, channels, height, width = x
        launch, segment_rows = Launch(), ctypes.c_int()
        cpu_library().irstd_haar_gate_launch(
            images, height, width, _bytes(half), self.multiprocessors,
            ctypes.byref(launch), ctypes.byref(segment_rows),
        )  # fmt: skip
        integers = (channels, height, width, segment_rows.value)
        return self._kernel("haar_gate", "irstd_haar_gate", half, launch, integers)

    def low(self, shapes: Sequence[Shape], half: bool, _: Attributes) -> Kernel:
        channels, height, width = _map_shape(shapes[0])[1:]
        if height * width > MOST_LOW_PX:
            raise BuildError(
                f"SpectralSplitLow: got {height} x {width} px; wanted at most {MOST_LOW_PX} px, or "
                "SpectralSplitRows, Columns and RowsBack"
            )
        return self._split(shapes[0], half, "whole", (channels, height, width))

    def rows(self, shapes: Sequence[Shape], half: bool, _: Attributes) -> Kernel:
        height, width = _map_shape(shapes[0])[2:]
        if height * width <= MOST_LOW_PX:
            raise BuildError(
                f"SpectralSplitRows: got {height} x {width} px; wanted more than {MOST_LOW_PX} px, "
                "or SpectralSplitLow"
            )
        return self._split(shapes[0], half, "rows", _map_shape(shapes[0])[2:])

    def columns(self, shapes: Sequence[Shape], half: bool, _: Attributes) -> Kernel:
        return self._split(shapes[0], half, "columns", _map_shape(shapes[0])[1:])

    def rows_back(self, shapes: Sequence[Shape], half: bool, _: Attributes) -> Kernel:
        return self._split(shapes[0], half, "rows_back", _map_shape(shapes[0])[2:])

    def gate(self, shapes: Sequence[Shape], half: bool, _: Attributes) -> Kernel:
        return self._split(shapes[0], half, "gate", _map_shape(shapes[0])[1:])

    def records(self, shapes: Sequence[Shape], half: bool, attributes: Attributes) -> Kernel:
        images, _, heads, d_head = shapes[0]
        if [d_head] != list(attributes["d_head"]):
            raise BuildError(f"MSDeformAttnRecords: d_head is {d_head} in value {shapes[0]}")
        plan = _plan(_pad_shapes(images, heads, d_head, attributes), half)
        source = pad_source(plan)
        return Kernel(PAD_KERNEL, self._ptx("quick_pad", source), plan.pad, ())

    def gather(self, shapes: Sequence[Shape], half: bool, attributes: Attributes) -> Kernel:
        images, queries, heads, levels, points, _ = shapes[1]
        (d_head,) = attributes["d_head"]
        if 2 * levels != len(attributes["level_hw"]):
            raise BuildError(f"MSDeformAttnGather: {levels} levels in offsets {shapes[1]}")
        planned = Shapes(
            images, queries, heads, d_head, levels, points,
            tuple(attributes.get("query_hw", ())), tuple(attributes["level_hw"]),
        )  # fmt: skip
        has_reference_points = len(shapes) == 4
        plan = _plan(planned, half, has_reference_points)
        source = gather_source(plan, planned, half, has_reference_points)
        return Kernel(GATHER_KERNEL, self._ptx("quick_gather", source), plan.gather, ())

    def _split(self, x: Shape, half: bool, part: str, integers: Sequence[int]) -> Kernel:
        images, channels, height, width = x
        launches, segment_rows = _SplitLaunches(), ctypes.c_int()
        cpu_library().irstd_spectral_split_launches(
            images, channels, height, width, _bytes(half), self.multiprocessors,
            ctypes.byref(launches), ctypes.byref(segment_rows),
        )  # fmt: skip
        extra = (segment_rows.value,) if part == "gate" else ()
        launch = launches.rows if part == "rows_back" else getattr(launches, part)
        return self._kernel(
            "spectral_split", f"irstd_spectral_split_{part}", half, launch, (*integers, *extra)
        )

    def _kernel(
        self, op: str, name: str, half: bool, launch: Launch, integers: tuple[int, ...]
    ) -> Kernel:
        ptx = build_ptx(op, self.architecture).read_text()
        return Kernel(f"{name}_{'f16' if half else 'f32'}", ptx, launch, integers)

    def _ptx(self, stem: str, source: str) -> str:
        return compile_ptx(stem, source, self.architecture)


class _SplitLaunches(ctypes.Structure):
    """What irstd_spectral_split_launches fills: every launch, whether a map is small or not."""

    _fields_ = (("whole", Launch), ("rows", Launch), ("columns", Launch), ("gate", Launch))


def _records_shape(shapes: Sequence[Sequence[Any]], attributes: Attributes) -> tuple[Any, ...]:
    """Return (numbers,): records of all heads."""
    (d_head,) = attributes["d_head"]
    one, two = (_record_numbers(attributes, d_head, heads) for heads in (1, 2))
    images, heads = shapes[0][0], shapes[0][2]
    return (images * heads * (two - one) + (2 * one - two),)


def _record_numbers(attributes: Attributes, d_head: int, heads: int) -> int:
    """Return how many numbers the records of so many heads of one image are."""
    plan = _plan(_pad_shapes(1, heads, d_head, attributes), half=True)
    return int(plan.records_bytes) // HALF_BYTES


def _out_shape(shapes: Sequence[Sequence[Any]], attributes: Attributes) -> tuple[Any, ...]:
    """Return (N, Lq, M * D) of the offsets (N, Lq, M, L, P, 2)."""
    images, queries, heads = shapes[1][:3]
    return images, queries, heads * attributes["d_head"][0]


def _pad_shapes(images: int, heads: int, d_head: int, attributes: Attributes) -> Shapes:
    """Return shapes for the pad alone, which does not depend on the queries."""
    level_hw = tuple(attributes["level_hw"])
    return Shapes(images, 1, heads, d_head, len(level_hw) // 2, 4, (1, 1), level_hw)


def _plan(shapes: Shapes, half: bool, has_reference_points: bool = False) -> Plan:
    number = Number.F16 if half else Number.F32
    return make_plan(shapes, number, has_reference_points=has_reference_points)


def _map_shape(x: Shape) -> Shape:
    if len(x) != 4 or x[2] not in SIDES_PX or x[3] not in SIDES_PX:
        raise BuildError(f"spectral split: got {x}; wanted (N, C, H, W), sides of {SIDES_PX} px")
    return x


def _bytes(half: bool) -> int:
    return HALF_BYTES if half else FLOAT_BYTES
