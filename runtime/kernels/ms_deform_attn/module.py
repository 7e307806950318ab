"""The whole module of deformable attention on a CPU, arrays in and out."""

import ctypes
from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from irstd.errors import InputError
from irstd.runtime.kernels.arrays import (
    check_array,
    check_status,
    in_parallel,
    on_cache_lines,
    result_array,
)
from irstd.runtime.kernels.cpu_library import cpu_library
from irstd.runtime.kernels.ms_deform_attn.projections import LinearStruct, PackedProjections
from irstd.runtime.kernels.ms_deform_attn.shapes import (
    MAX_LEVELS,
    MAX_POINTS,
    Shapes,
    check_grid,
    check_levels,
)


class _Struct(ctypes.Structure):
    """irstd_ms_deform_attn_module."""

    _fields_ = (
        ("shape", ctypes.c_int32 * (8 + 2 * MAX_LEVELS)),
        ("channels", ctypes.c_int32),
        ("results", ctypes.c_int32),
        ("is_integer", ctypes.c_int32),
        ("query_scale", ctypes.c_float),
        ("query_zero", ctypes.c_float),
        ("source_scale", ctypes.c_float),
        ("source_zero", ctypes.c_float),
        ("value", LinearStruct),
        ("points", LinearStruct),
        ("output", LinearStruct),
        ("query", ctypes.c_void_p),
        ("source", ctypes.c_void_p),
        ("reference_points", ctypes.c_void_p),
        ("value_zero", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("maps", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
    )


def ms_deform_attn_module(
    query: NDArray[np.float32],
    source: NDArray[np.float32],
    projections: PackedProjections,
    reference_points: NDArray[np.float32] | None = None,
    *,
    level_hw: Sequence[int],
    query_hw: Sequence[int] = (),
    out: NDArray[np.float32] | None = None,
    threads: int = 1,
) -> NDArray[np.float32]:
    """Return deformable attention with its four projections.

    Args:
        query: (N, Lq, C) float32, finite, with its position embedding.
        source: (N, S, C) float32, finite; the values come from it.
        projections: From `pack_projections`, or `pack_projections_u8` for integer products.
        reference_points: As in `ms_deform_attn`, like what follows but `out`.
        level_hw: ...
        query_hw: ...
        out: (N, Lq, E) float32 to write to, no part of an input; None makes a new array.
        threads: At most this many.

    Returns:
        `out`; in float32 within 1e-5 of the definition, relative to its largest value.

    Raises:
        InputError: An array is not as above, or they do not fit together; `out` may have been
            written to if an input is not finite.
        UsageError: `threads` is not a number from 1 to 1024.
        DeviceError: Out of memory.
        MissingDependency: No C++ compiler to make the library with.
    """
    check_array("query", query, (None, None, projections.channels))
    check_array("source", source, (len(query), None, projections.channels))
    shapes = _shapes(query, source, projections, reference_points, level_hw, query_hw)
    inputs = [a for a in (query, source, reference_points) if a is not None]
    out = result_array(out, (*query.shape[:2], projections.output.columns), *inputs)
    _, status = _run(query, source, projections, reference_points, shapes, out, threads)
    check_status(status, "query, source or reference points")
    return out


def _shapes(
    query: NDArray[np.float32],
    source: NDArray[np.float32],
    projections: PackedProjections,
    reference_points: NDArray[np.float32] | None,
    level_hw: Sequence[int],
    query_hw: Sequence[int],
) -> Shapes:
    images, queries = query.shape[:2]
    level_hw, query_hw = tuple(level_hw), tuple(query_hw)
    levels = check_levels(level_hw, source.shape[1], projections.d_head)
    points, left = divmod(projections.points_per_query, projections.heads * levels)
    if left or not 1 <= points <= MAX_POINTS:
        raise InputError(
            f"logit_weight: got {projections.points_per_query} logits; "
            f"wanted 1 to {MAX_POINTS} for each of {projections.heads} heads on {levels} levels"
        )
    if reference_points is not None:
        check_array("reference_points", reference_points, (images, queries, 2))
    check_grid(query_hw, queries, reference_points is not None)
    return Shapes(
        images, queries, projections.heads, projections.d_head, levels, points, query_hw, level_hw
    )


def _run(
    query: NDArray[np.float32],
    source: NDArray[np.float32],
    projections: PackedProjections,
    reference_points: NDArray[np.float32] | None,
    shapes: Shapes,
    out: NDArray[np.float32],
    threads: int,
) -> tuple[NDArray[np.generic], int]:
    """Write `out` and return the values (N, S, M, D) and the worst status."""
    p, q = projections, projections.quantization
    library = cpu_library()
    library.irstd_ms_deform_attn_map_bytes.restype = ctypes.c_int64
    shape = shapes.pack()
    map_bytes = library.irstd_ms_deform_attn_map_bytes(
        ctypes.c_void_p(shape.ctypes.data), int(q is not None)
    )
    maps_count = shapes.images * shapes.heads
    values = on_cache_lines(
        (*source.shape[:2], shapes.heads, shapes.d_head), np.float32 if q is None else np.uint8
    )
    maps = on_cache_lines((maps_count * map_bytes,), np.uint8)
    struct = _Struct(
        (ctypes.c_int32 * len(shape))(*shape.tolist()),
        p.channels,
        p.output.columns,
        q is not None,
        *((q.query_scale, q.query_zero, q.source_scale, q.source_zero) if q else (1, 0, 1, 0)),
        p.value.struct(),
        p.points.struct(),
        p.output.struct(),
        query.ctypes.data,
        source.ctypes.data,
        None if reference_points is None else reference_points.ctypes.data,
        q.value_zero.ctypes.data if q else None,
        values.ctypes.data,
        maps.ctypes.data,
        out.ctypes.data,
    )
    status = 0
    for step, count in (
        (library.irstd_ms_deform_attn_module_values, prod(source.shape[:2])),
        (library.irstd_ms_deform_attn_module_maps, maps_count),
        (library.irstd_ms_deform_attn_module_queries, shapes.images * shapes.queries),
    ):

        def rows(begin: int, end: int, step: "ctypes._NamedFuncPointer" = step) -> int:
            result: int = step(ctypes.byref(struct), ctypes.c_int64(begin), ctypes.c_int64(end))
            return result

        status = max(status, in_parallel(rows, count, threads))
    return values, status
