"""The spectral split on a GPU: arrays in and out, and on arrays of the device."""

import ctypes

import numpy as np
from numpy.typing import NDArray

from irstd.errors import InputError
from irstd.runtime.kernels.arrays import check_array, check_maps, check_range
from irstd.runtime.kernels.cpu_library import cpu_library
from irstd.runtime.kernels.cuda.driver import Device
from irstd.runtime.kernels.cuda.launch import Launch, check_alignment
from irstd.runtime.kernels.spectral_split.reference import BANDS, KERNEL_PX, POOLS

OP = "spectral_split"
SIDES_PX = (32, 64, 128, 256, 512)
MOST_HALF = 16000.0  # the bands and their spectra stay in half
MOST_IMAGES = 65535  # of a launch
_MOST_LAUNCHES = 4


class SpectralSplit:
    """Calls of one shape on arrays of a device, for networks and measurements.

    Keeps the memory of the low band; calls belong to one stream. What it takes is not checked for
    NaN: these give NaN, and nothing outside the arrays is read or written.
    """

    def __init__(
        self, device: Device, shape: tuple[int, int, int, int], dtype: type[np.floating]
    ) -> None:
        """Plan, compile and load.

        Args:
            device: Where it runs.
            shape: N, C, H, W; H and W of SIDES_PX.
            dtype: float32 or float16.

        Raises:
            InputError: The kernels do not take these sides, or so many images.
            MissingDependency: No compiler.
            BuildError: It refuses the source.
            DeviceError: Nothing that is compiled fits the device, or out of memory.
        """
        images, channels, height, width = shape
        if height not in SIDES_PX or width not in SIDES_PX:
            raise InputError(
                f"x: got {height} x {width} px; the spectral split on a GPU takes sides of "
                f"{', '.join(map(str, SIDES_PX))} px: pad x, or run the plain graph"
            )
        if images > MOST_IMAGES:
            raise InputError(f"x: got {images} images; wanted at most {MOST_IMAGES} in a call")
        launches, segment_rows = (Launch * _MOST_LAUNCHES)(), ctypes.c_int()
        count = cpu_library().irstd_spectral_split_launch(
            images, channels, height, width, np.dtype(dtype).itemsize,
            device.properties.multiprocessors, launches, ctypes.byref(segment_rows),
        )  # fmt: skip
        self._launches = launches[:count]
        parts = ("whole",) if count == 2 else ("rows", "columns", "rows_back")
        suffix = "f16" if dtype is np.float16 else "f32"
        self._kernels = [
            device.kernel(OP, f"irstd_spectral_split_{part}_{suffix}") for part in (*parts, "gate")
        ]
        self._map = [np.int32(n) for n in (channels, height, width)]
        self._segment_rows = np.int32(segment_rows.value)
        self._low = device.empty(shape, dtype)

    def __call__(
        self,
        x: object,
        cutoff: object,
        gate_weight: object,
        gate_bias: object,
        gamma: object,
        out: object,
    ) -> None:
        """Put the kernels into the device's stream.

        Arrays have `__cuda_array_interface__`.

        Args:
            x: (N, C, H, W), starts at a multiple of 16 bytes.
            cutoff: (C,) float32.
            gate_weight: (2, 2, 7, 7) float32.
            gate_bias: (2,) float32.
            gamma: (2, C) float32.
            out: (N, C, H, W) to write to, like x; no part of an input.

        Raises:
            InputError: An array starts elsewhere, or is not contiguous.
            DeviceError: The driver refuses a launch.
        """
        check_alignment("x", x)
        check_alignment("out", out)
        *transforms, gate = self._kernels
        *geometry, gate_geometry = self._launches
        low, size_hw = self._low, self._map[1:]
        if len(transforms) == 1:
            transforms[0](geometry[0], x, cutoff, *self._map, low)
        else:
            rows, columns, rows_back = transforms
            rows(geometry[0], x, *size_hw, low)
            columns(geometry[1], low, cutoff, *self._map, low)
            rows_back(geometry[2], x, low, *size_hw, low)
        gate(
            gate_geometry,
            x,
            low,
            gate_weight,
            gate_bias,
            gamma,
            *self._map,
            self._segment_rows,
            out,
        )


def spectral_split(
    device: Device,
    x: NDArray[np.floating],
    cutoff: NDArray[np.float32],
    gate_weight: NDArray[np.float32],
    gate_bias: NDArray[np.float32],
    gamma: NDArray[np.float32],
) -> NDArray[np.floating]:
    """Return x plus its low and its high band, each weighted by its own gate and gains.

    Args:
        device: Where it is computed.
        x: (N, C, H, W) float32 or float16, finite, float16 within 16000 of zero; H and W of
            SIDES_PX.
        cutoff: (C,) float32, D0 of the Butterworth low-pass in cycles per pixel, above 0.
        gate_weight: (2, 2, 7, 7) float32, finite: for the low and the high band the kernel on the
            mean and on the maximum over the channels.
        gate_bias: (2,) float32, finite.
        gamma: (2, C) float32, finite, the gains of the low and the high band.

    Returns:
        (N, C, H, W) of x's dtype, within 1e-5 (float32) or 2e-3 (float16) of the definition,
        relative to its largest value. In float16 that holds while logits are below about a hundred:
        the bands that they come from have 11 bits.

    Raises:
        InputError: An array is not as above.
        MissingDependency: No compiler.
        DeviceError: The device is out of memory, or nothing that is compiled fits it.
    """
    dtype = np.float16 if isinstance(x, np.ndarray) and x.dtype == np.float16 else np.float32
    shape = check_maps("x", x, dtype)
    channels = shape[1]
    check_array("cutoff", cutoff, (channels,))
    check_array("gate_weight", gate_weight, (len(BANDS), len(POOLS), KERNEL_PX, KERNEL_PX))
    check_array("gate_bias", gate_bias, (len(BANDS),))
    check_array("gamma", gamma, (len(BANDS), channels))
    check_range("x", x, MOST_HALF)
    for name, array in (("gate_weight", gate_weight), ("gate_bias", gate_bias), ("gamma", gamma)):
        check_range(name, array)
    if not (np.isfinite(cutoff) & (cutoff > 0)).all():
        raise InputError("cutoff: wanted finite numbers above 0, in cycles per pixel")
    split = SpectralSplit(device, shape, dtype)
    out = device.empty(x.shape, dtype)
    split(
        device.array(x), device.array(cutoff), device.array(gate_weight), device.array(gate_bias),
        device.array(gamma), out,
    )  # fmt: skip
    return out.numpy()
