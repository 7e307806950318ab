"""What kernels that are called from Python check of their arrays, and how they share out rows."""

import ctypes
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irstd.errors import DeviceError, InputError, UsageError

MOST_THREADS = 1024
CACHE_LINE_BYTES = 64
MOST_OF_AXIS = 2**31 - 1  # native code counts in int
MOST_OF_MAP = 2**27  # px: pixels.hpp
_NOT_FINITE, _NO_MEMORY = 1, 2  # status.hpp


def check_array(
    name: str, array: object, shape: Sequence[int | None], dtype: type[np.generic] = np.float32
) -> None:
    """Check what native code trusts.

    Args:
        name: What the message calls it.
        array: Anything; only a C-contiguous, aligned array of that dtype and shape passes.
        shape: Wanted size of each axis; None accepts any size from 1 to MOST_OF_AXIS.
        dtype: Wanted dtype, in native byte order.

    Raises:
        InputError: It is something else.
    """
    wanted = f"({', '.join('any' if n is None else str(n) for n in shape)}) {np.dtype(dtype)}"
    if not isinstance(array, np.ndarray):
        raise InputError(f"{name}: got {type(array).__name__}; wanted an array {wanted}")
    fits = array.ndim == len(shape) and all(
        have == want or (want is None and 0 < have <= MOST_OF_AXIS)
        for have, want in zip(array.shape, shape, strict=True)
    )
    if not fits or array.dtype != dtype:
        raise InputError(f"{name}: got {array.shape} {array.dtype}; wanted {wanted}")
    if not array.flags.c_contiguous or not array.flags.aligned:
        raise InputError(
            f"{name}: not contiguous in memory or not aligned; pass numpy.ascontiguousarray({name})"
        )


def check_maps(
    name: str, array: NDArray[Any], dtype: type[np.generic] = np.float32
) -> tuple[int, int, int, int]:
    """Check (N, C, H, W) maps as `check_array` does, and return their shape.

    Raises:
        InputError: They are something else, or a map has more than MOST_OF_MAP px.
    """
    check_array(name, array, (None,) * 4, dtype)
    images, channels, height, width = array.shape
    if height * width > MOST_OF_MAP:
        raise InputError(
            f"{name}: got {height} x {width} px; wanted at most {MOST_OF_MAP} px in a map"
        )
    return images, channels, height, width


def check_status(status: int, inputs: str) -> None:
    """Raise what a native function returned (status.hpp).

    Args:
        status: 0 if all is well.
        inputs: Names of what it read.

    Raises:
        InputError: An input is not finite, or a sum of one.
        DeviceError: There was no memory to work in.
    """
    if status == _NOT_FINITE:
        raise InputError(
            f"{inputs}: holds NaN or infinity, or numbers whose sum is; wanted finite numbers"
        )
    if status == _NO_MEMORY:
        raise DeviceError("out of memory: fewer threads, or smaller maps, need less")


def check_range(name: str, array: NDArray[np.floating], most_half: float = float("inf")) -> None:
    """Check the numbers that a kernel on a GPU trusts.

    Args:
        name: What the message calls it.
        array: Floats.
        most_half: The largest number, without its sign, that the kernel takes in float16.

    Raises:
        InputError: One is NaN or infinite, or float16 and larger.
    """
    if not np.isfinite(array).all():
        raise InputError(f"{name}: holds NaN or infinity; wanted finite numbers")
    if array.dtype == np.float16 and (most := float(np.abs(array).max())) > most_half:
        raise InputError(
            f"{name}: holds {most:.0f} in float16; wanted at most {most_half:.0f}: scale it, or "
            "use float32"
        )


def result_array(
    out: NDArray[np.float32] | None, shape: Sequence[int], *inputs: NDArray[np.generic]
) -> NDArray[np.float32]:
    """Return the float32 array that a kernel writes: `out` if it is given and fit for that.

    Raises:
        InputError: `out` is another shape or dtype, read-only, or shares memory with an input.
    """
    if out is None:
        return on_cache_lines(shape, np.float32)
    check_array("out", out, shape)
    if not out.flags.writeable:
        raise InputError("out: is read-only; wanted an array that may be written")
    if any(np.may_share_memory(out, array) for array in inputs):
        raise InputError("out: shares memory with an input; wanted another array")
    return out


def on_cache_lines(shape: Sequence[int], dtype: type[np.generic]) -> NDArray[Any]:
    """Return an uninitialised array that starts on a cache line.

    numpy's own start 16 bytes past one, so that vectors straddle lines and the kernels cannot write
    past the caches.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + CACHE_LINE_BYTES, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE_BYTES
    return memory[start : start + size].view(dtype).reshape(shape)


def pointer(array: NDArray[np.generic]) -> ctypes.c_void_p:
    """Return the address of an array's first element; the caller keeps the array alive."""
    return ctypes.c_void_p(array.ctypes.data)


def in_parallel(task: Callable[[int, int], int], count: int, threads: int) -> int:
    """Share `count` rows out to threads and return the worst status.

    Args:
        task: Takes the first row and the one after the last, returns a status; native code, which
            runs while others hold the interpreter.
        count: Rows.
        threads: At most one for each row is started.

    Raises:
        UsageError: `threads` is not a whole number from 1 to MOST_THREADS.
    """
    if not isinstance(threads, int) or not 1 <= threads <= MOST_THREADS:
        raise UsageError(f"threads {threads!r}: wanted a whole number from 1 to {MOST_THREADS}")
    parts = min(threads, count)
    if parts == 1:
        return task(0, count)
    edges = [count * part // parts for part in range(parts + 1)]
    with ThreadPoolExecutor(parts) as pool:
        return max(pool.map(task, edges[:-1], edges[1:]))
