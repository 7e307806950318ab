"""Multi-scale deformable attention on a CPU, arrays in and out."""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irstd.runtime.kernels.arrays import (
    check_array,
    check_status,
    in_parallel,
    pointer,
    result_array,
)
from irstd.runtime.kernels.cpu_library import cpu_library
from irstd.runtime.kernels.ms_deform_attn.shapes import Shapes, check_quantization


def ms_deform_attn(
    value: NDArray[np.float32],
    offsets: NDArray[np.float32],
    logits: NDArray[np.float32],
    reference_points: NDArray[np.float32] | None = None,
    *,
    level_hw: Sequence[int],
    query_hw: Sequence[int] = (),
    out: NDArray[np.float32] | None = None,
    threads: int = 1,
) -> NDArray[np.float32]:
    """Return for every query and head the softmax-weighted sum of L * P bilinear samples.

    Args:
        value: (N, S, M, D) float32, finite: the levels one after the other, each row-major. D is
            1, 8, 16 or 32.
        offsets: (N, Lq, M, L, P, 2) float32, finite, (x, y) in pixels of the level. P is 1 to 8.
        logits: (N, Lq, M, L, P) float32, finite.
        reference_points: (N, Lq, 2) float32, finite, (x, y) in [0, 1] of the image; None with
            `query_hw`.
        level_hw: H0, W0, H1, W1, ... of 1 to 4 levels.
        query_hw: Hq, Wq with Hq * Wq = Lq: queries are the pixels of a grid, row-major, and each
            refers to its own centre. Empty with `reference_points`.
        out: (N, Lq, M * D) float32 to write to, no part of an input; None makes a new array.
        threads: At most this many.

    Returns:
        `out`, within 1e-5 of the definition, relative to its largest value.

    Raises:
        InputError: An array is not as above, or they do not fit together; `out` may have been
            written to if an input is not finite.
        UsageError: `threads` is not a number from 1 to 1024.
        DeviceError: Out of memory.
        MissingDependency: No C++ compiler to make the library with.
    """
    check_array("value", value, (None,) * 4)
    values = (value,)
    return _attend(values, offsets, logits, reference_points, level_hw, query_hw, out, threads)


def ms_deform_attn_u8(
    value: NDArray[np.uint8],
    scale: NDArray[np.float32],
    zero: NDArray[np.float32],
    offsets: NDArray[np.float32],
    logits: NDArray[np.float32],
    reference_points: NDArray[np.float32] | None = None,
    *,
    level_hw: Sequence[int],
    query_hw: Sequence[int] = (),
    out: NDArray[np.float32] | None = None,
    threads: int = 1,
) -> NDArray[np.float32]:
    """Return `ms_deform_attn` of the values scale * (value - zero).

    Args:
        value: (N, S, M, D) uint8.
        scale: (M,) float32, finite and positive.
        zero: (M,) float32, whole numbers from 0 to 255.
        offsets: As in `ms_deform_attn`, like all that follow.
        logits: ...
        reference_points: ...
        level_hw: ...
        query_hw: ...
        out: ...
        threads: ...

    Returns:
        `out`. Points are rounded to 1/255 px: within two scales of the definition with dequantized
        values, and within half of one where neighbours differ by a few steps.

    Raises:
        InputError: As in `ms_deform_attn`, or scale or zero is out of range.
        UsageError: `threads` is not a number from 1 to 1024.
        DeviceError: Out of memory.
        MissingDependency: No C++ compiler to make the library with.
    """
    check_array("value", value, (None,) * 4, np.uint8)
    check_quantization(scale, zero, value.shape[2])
    values = (value, scale, zero)
    return _attend(values, offsets, logits, reference_points, level_hw, query_hw, out, threads)


def _attend(
    values: Sequence[NDArray[Any]],
    offsets: NDArray[np.float32],
    logits: NDArray[np.float32],
    reference_points: NDArray[np.float32] | None,
    level_hw: Sequence[int],
    query_hw: Sequence[int],
    out: NDArray[np.float32] | None,
    threads: int,
) -> NDArray[np.float32]:
    """Compute with checked values: an array, or bytes with their scale and zero."""
    shapes = Shapes.of(values[0], offsets, logits, reference_points, level_hw, query_hw)
    inputs = [*values, offsets, logits, reference_points]
    out = result_array(out, shapes.out, *(array for array in inputs if array is not None))
    library, shape = cpu_library(), shapes.pack()
    run = library.irstd_ms_deform_attn_f32
    if len(values) > 1:
        run = library.irstd_ms_deform_attn_u8
    addresses = [None if array is None else pointer(array) for array in (shape, *inputs, out)]

    def items(begin: int, end: int) -> int:
        status: int = run(*addresses, ctypes.c_int64(begin), ctypes.c_int64(end))
        return status

    status = in_parallel(items, shapes.images * shapes.heads * shapes.queries, threads)
    check_status(status, "value, offsets, logits or reference points")
    return out
