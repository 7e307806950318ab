"""The spectral split on a CPU, arrays in and out."""

import numpy as np
from numpy.typing import NDArray

from irstd.errors import InputError
from irstd.runtime.kernels.arrays import (
    check_array,
    check_maps,
    check_status,
    in_parallel,
    pointer,
    result_array,
)
from irstd.runtime.kernels.cpu_library import cpu_library
from irstd.runtime.kernels.spectral_split.reference import BANDS, KERNEL_PX, POOLS


def spectral_split(
    x: NDArray[np.float32],
    cutoff: NDArray[np.float32],
    gate_weight: NDArray[np.float32],
    gate_bias: NDArray[np.float32],
    gamma: NDArray[np.float32],
    *,
    out: NDArray[np.float32] | None = None,
    work: NDArray[np.float32] | None = None,
    threads: int = 1,
) -> NDArray[np.float32]:
    """Return x plus its low and its high band, each weighted by its own gate and gains.

    Sides of the map that are multiples of 16 px without a prime factor above 5 are fast. Any other
    is correct, a large prime slow.

    Args:
        x: (N, C, H, W) float32, finite.
        cutoff: (C,) float32, D0 of the Butterworth low-pass in cycles per pixel, above 0.
        gate_weight: (2, 2, 7, 7) float32, finite: for the low and the high band the kernel on the
            mean and on the maximum over the channels.
        gate_bias: (2,) float32, finite.
        gamma: (2, C) float32, finite, the gains of the low and the high band.
        out: (N, C, H, W) float32 to write to, no part of an input; None makes a new array.
        work: (C, H, W) float32 for the low band of one image; None makes a new array. A caller
            with many maps of one size saves the system the trouble of finding that memory.
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
    check_array("cutoff", cutoff, (channels,))
    check_array("gate_weight", gate_weight, (len(BANDS), len(POOLS), KERNEL_PX, KERNEL_PX))
    check_array("gate_bias", gate_bias, (len(BANDS),))
    check_array("gamma", gamma, (len(BANDS), channels))
    if not (np.isfinite(cutoff) & (cutoff > 0)).all():
        raise InputError("cutoff: wanted finite numbers above 0, in cycles per pixel")
    inputs = (x, cutoff, gate_weight, gate_bias, gamma)
    out = result_array(out, x.shape, *inputs)
    low = result_array(work, x.shape[1:], *inputs, out)
    library = cpu_library()
    for image in range(images):

        def transform(begin: int, end: int, image: int = image) -> int:
            status: int = library.irstd_spectral_split_low_f32(
                pointer(x[image]), pointer(cutoff), pointer(low), height, width, begin, end
            )
            return status

        def recombine(begin: int, end: int, image: int = image) -> int:
            status: int = library.irstd_spectral_split_gate_f32(
                pointer(x[image]), pointer(low), pointer(gate_weight), pointer(gate_bias),
                pointer(gamma), pointer(out[image]), channels, height, width, begin, end,
            )  # fmt: skip
            return status

        check_status(in_parallel(transform, channels, threads), "cutoff")
        status = in_parallel(recombine, height, threads)
        check_status(status, "x, gate_weight, gate_bias or gamma")
    return out
