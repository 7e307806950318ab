"""The Haar gate on a CPU, arrays in and out."""

import numpy as np
from numpy.typing import NDArray

from irstd.errors import InputError
from irstd.runtime.kernels.arrays import check_array, in_parallel, pointer, result_array
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
        weight: (4, 2, 7, 7) float32: for the bands LH, HL, HH, LL the kernel on the channel
            maximum and on the channel mean.
        bias: (4,) float32.
        out: (N, C, H, W) float32 to write to, no part of an input; None makes a new array.
        threads: At most this many.

    Returns:
        `out`, within 1e-5 of the definition, relative to its largest value.

    Raises:
        InputError: An array is not as above; `out` may have been written to if x is not finite.
        UsageError: `threads` is not a positive number.
        MissingDependency: No C++ compiler to make the library with.
    """
    check_array("x", x, (None,) * 4)
    check_array("weight", weight, (len(BANDS), 2, KERNEL_PX, KERNEL_PX))
    check_array("bias", bias, (len(BANDS),))
    out = result_array(out, x.shape, x, weight, bias)
    images, channels, height, width = x.shape
    run = cpu_library().irstd_haar_gate_f32

    def rows(begin: int, end: int) -> int:
        status: int = run(
            pointer(x), pointer(weight), pointer(bias), pointer(out),
            images, channels, height, width, begin, end,
        )  # fmt: skip
        return status

    if in_parallel(rows, height, threads):
        raise InputError("x: holds NaN or infinity; wanted finite numbers")
    return out
