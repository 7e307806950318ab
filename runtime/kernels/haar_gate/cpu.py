"""The Haar gate on a CPU, arrays in and out."""

import numpy as np
from numpy.typing import NDArray

from irstd.runtime.kernels.arrays import (
    check_array,
    check_maps,
    check_status,
    in_parallel,
    pointer,
    result_array,
)
from irstd.runtime.kernels.cpu_library import cpu_library
from irstd.runtime.kernels.haar_gate.reference import BANDS, KERNEL_PX


def haar_gate(
    x: NDArray[np.float32],
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    *,
    out: NDArray[np.float32] | None = None,
    threads: int = 1,
) -> NDArray[np.float32]:
    """Return x times the sum of the sigmoid gates of its four undecimated Haar bands.

    Args:
        x: (N, C, H, W) float32, finite.
        weight: (4, 2, 7, 7) float32, finite: for the bands LH, HL, HH, LL the kernel on the channel
            maximum and on the channel mean.
        bias: (4,) float32, finite.
        out: (N, C, H, W) float32 to write to, no part of an input; None makes a new array.
        threads: At most this many.

    Returns:
        `out`, within 1e-5 of the definition, relative to its largest value.

    Raises:
        InputError: An array is not as above; `out` may have been written to if one is not finite.
        UsageError: `threads` is not a number from 1 to 1024.
        DeviceError: Out of memory.
        MissingDependency: No C++ compiler to make the library with.
    """
    images, channels, height, width = check_maps("x", x)
    check_array("weight", weight, (len(BANDS), 2, KERNEL_PX, KERNEL_PX))
    check_array("bias", bias, (len(BANDS),))
    out = result_array(out, x.shape, x, weight, bias)
    run = cpu_library().irstd_haar_gate_f32

    def rows(begin: int, end: int) -> int:
        status: int = run(
            pointer(x), pointer(weight), pointer(bias), pointer(out),
            images, channels, height, width, begin, end,
        )  # fmt: skip
        return status

    check_status(in_parallel(rows, height, threads), "x, weight or bias")
    return out
