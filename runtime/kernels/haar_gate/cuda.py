"""The Haar gate on a GPU: arrays in and out, and on arrays of the device."""

import ctypes

import numpy as np
from numpy.typing import NDArray

from irstd.errors import InputError
from irstd.runtime.kernels.arrays import check_array, check_maps, check_range
from irstd.runtime.kernels.cpu_library import cpu_library
from irstd.runtime.kernels.cuda.driver import Device
from irstd.runtime.kernels.cuda.launch import Launch, check_alignment
from irstd.runtime.kernels.haar_gate.reference import BANDS, KERNEL_PX

OP = "haar_gate"
MOST_HALF = 16000.0  # sums of four pixels stay in half
MOST_IMAGES = 65535  # of a launch


class HaarGate:
    """Calls of one shape on arrays of a device, for networks and measurements.

    What it takes is not checked for NaN: these give NaN, and nothing outside the arrays is read or
    written.
    """

    def __init__(
        self, device: Device, shape: tuple[int, int, int, int], dtype: type[np.floating]
    ) -> None:
        """Plan, compile and load.

        Args:
            device: Where it runs.
            shape: N, C, H, W.
            dtype: float32 or float16.

        Raises:
            InputError: More images than a launch takes.
            MissingDependency: No compiler.
            BuildError: It refuses the source.
            DeviceError: Nothing that is compiled fits the device.
        """
        images, channels, height, width = shape
        if images > MOST_IMAGES:
            raise InputError(f"x: got {images} images; wanted at most {MOST_IMAGES} in a call")
        self._launch, segment_rows = Launch(), ctypes.c_int()
        cpu_library().irstd_haar_gate_launch(
            images, height, width, np.dtype(dtype).itemsize, device.properties.multiprocessors,
            ctypes.byref(self._launch), ctypes.byref(segment_rows),
        )  # fmt: skip
        self._sizes = [np.int32(n) for n in (channels, height, width, segment_rows.value)]
        suffix = "f16" if dtype is np.float16 else "f32"
        self._kernel = device.kernel(OP, f"irstd_haar_gate_{suffix}")

    def __call__(self, x: object, weight: object, bias: object, out: object) -> None:
        """Put the kernel into the device's stream.

        Arrays have `__cuda_array_interface__`.

        Args:
            x: (N, C, H, W), starts at a multiple of 16 bytes.
            weight: (4, 2, 7, 7) float32.
            bias: (4,) float32.
            out: (N, C, H, W) to write to, likewise; no part of an input.

        Raises:
            InputError: An array starts elsewhere, or is not contiguous.
            DeviceError: The driver refuses the launch.
        """
        check_alignment("x", x)
        check_alignment("out", out)
        self._kernel(self._launch, x, weight, bias, *self._sizes, out)


def haar_gate(
    device: Device,
    x: NDArray[np.floating],
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
) -> NDArray[np.floating]:
    """Return x times the sum of the sigmoid gates of its four undecimated Haar bands.

    Args:
        device: Where it is computed.
        x: (N, C, H, W) float32 or float16, finite, float16 within 16000 of zero.
        weight: (4, 2, 7, 7) float32, finite: for the bands LH, HL, HH, LL the kernel on the channel
            maximum and on the channel mean.
        bias: (4,) float32, finite.

    Returns:
        (N, C, H, W) of x's dtype, within 1e-5 (float32) or 2e-3 (float16) of the definition,
        relative to its largest value. In float16 that holds while logits are below about a hundred
        (their bands have 11 bits); with larger ones it is as in any graph with its bands in half.

    Raises:
        InputError: An array is not as above.
        MissingDependency: No compiler.
        DeviceError: The device is out of memory, or nothing that is compiled fits it.
    """
    dtype = np.float16 if isinstance(x, np.ndarray) and x.dtype == np.float16 else np.float32
    shape = check_maps("x", x, dtype)
    check_array("weight", weight, (len(BANDS), 2, KERNEL_PX, KERNEL_PX))
    check_array("bias", bias, (len(BANDS),))
    check_range("x", x, MOST_HALF)
    check_range("weight", weight)
    check_range("bias", bias)
    gate = HaarGate(device, shape, dtype)
    out = device.empty(x.shape, dtype)
    gate(device.array(x), device.array(weight), device.array(bias), out)
    return out.numpy()
