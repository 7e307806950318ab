"""Deformable attention with its projections, as `irstd-bench kernels` times it."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irstd.benchmarks.kernels.cases import aligned
from irstd.benchmarks.kernels.cpu_case import OURS, CpuCase
from irstd.benchmarks.kernels.cpu_peers import Run, module_work, peers
from irstd.runtime.kernels.ms_deform_attn import reference
from irstd.runtime.kernels.ms_deform_attn.module import ms_deform_attn_module
from irstd.runtime.kernels.ms_deform_attn.projections import (
    PackedProjections,
    observe,
    pack_projections,
    pack_projections_u8,
)
from irstd.runtime.kernels.ms_deform_attn.reference import Projections

_Floats = NDArray[np.float32]

_SEED = 0
_OFFSET_STD_PX = 3.0  # as in the cases of the core


@dataclasses.dataclass(frozen=True)
class Size:
    """Of a module that reads a grid of queries and maps of the grid, a half and a quarter.

    Attributes:
        side_px: Of the grid.
        channels: C, of query, source and result.
        heads: M.
        points: P.
    """

    side_px: int
    channels: int = 256
    heads: int = 8
    points: int = 4

    @property
    def where(self) -> dict[str, Any]:
        """Sides of the maps and of the grid."""
        sides = [self.side_px // part for part in (1, 2, 4) for _ in range(2)]
        return {"level_hw": sides, "query_hw": [self.side_px] * 2}

    @property
    def rows(self) -> dict[str, int]:
        """Lq and S, by the input that has so many rows."""
        side_px = self.side_px
        return {"query": side_px**2, "source": sum((side_px // part) ** 2 for part in (1, 2, 4))}


REFERENCE = Size(128)


def module_cases() -> Iterator[CpuCase]:
    """Yield the module in float32 and in integers."""
    for dtype in ("float32", "uint8"):
        yield module_case("reference", REFERENCE, dtype)


def module_case(label: str, size: Size, dtype: str) -> CpuCase:
    """Return the case of one size, drawn with a fixed seed; "uint8" multiplies bytes."""
    rng = np.random.default_rng(_SEED)
    arrays, layers = _inputs(size, rng), _layers(size, rng)
    packed = pack_projections(layers, size.heads)
    if dtype == "uint8":
        packed = pack_projections_u8(
            layers, size.heads, observe(**arrays, layers=layers, heads=size.heads)
        )
    wanted: list[NDArray[np.float64]] = []  # takes seconds: made when first asked for

    def error(result: Any) -> float:
        if not wanted:
            made = reference.ms_deform_attn_module(
                arrays["query"], arrays["source"], layers, heads=size.heads, **size.where
            )
            wanted.append(made)
        return float(np.abs(result - wanted[0]).max() / np.abs(wanted[0]).max())

    def prepare(threads: int) -> Iterator[tuple[str, Run]]:
        yield OURS, _ours(arrays, packed, threads, size.where)
        yield from peers(module_work(arrays, layers, size.heads, size.where), threads)

    return CpuCase("ms_deform_attn_module", label, dtype, prepare, error)


def _inputs(size: Size, rng: np.random.Generator) -> dict[str, _Floats]:
    return {
        name: aligned(rng.standard_normal((1, count, size.channels)), np.float32).view(np.float32)
        for name, count in size.rows.items()
    }


def _layers(size: Size, rng: np.random.Generator) -> Projections:
    """Return layers whose results have a deviation of 1, and offsets one of some pixels."""
    logits = size.heads * len(size.where["level_hw"]) // 2 * size.points
    layers: list[_Floats] = []
    for columns, std in (
        (size.channels, 1.0),
        (2 * logits, _OFFSET_STD_PX),
        (logits, 1.0),
        (size.channels, 1.0),
    ):
        weight = rng.standard_normal((columns, size.channels)) * std / np.sqrt(size.channels)
        layers += [weight.astype(np.float32), rng.standard_normal(columns).astype(np.float32)]
    return Projections(*layers)


def _ours(
    arrays: dict[str, _Floats], packed: PackedProjections, threads: int, where: dict[str, Any]
) -> Run:
    query, source = arrays["query"], arrays["source"]
    out = ms_deform_attn_module(query, source, packed, **where, threads=threads)
    return lambda: ms_deform_attn_module(query, source, packed, **where, out=out, threads=threads)
