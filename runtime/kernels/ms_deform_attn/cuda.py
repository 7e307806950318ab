"""Multi-scale deformable attention on a GPU: arrays in and out, and on arrays of the device."""

import ctypes
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irstd.errors import InputError
from irstd.runtime.kernels.arrays import check_array, check_range, pointer
from irstd.runtime.kernels.cpu_library import cpu_library
from irstd.runtime.kernels.cuda.driver import Device
from irstd.runtime.kernels.cuda.launch import Launch, check_alignment
from irstd.runtime.kernels.ms_deform_attn.shapes import Shapes, check_quantization

OP = "ms_deform_attn"


class Number(IntEnum):
    """What values are; offsets, logits and results are half unless values are float32."""

    F16 = 0
    F32 = 1
    U8 = 2

    @property
    def query_dtype(self) -> type[np.floating]:
        """The dtype of offsets, logits and results."""
        return np.float32 if self is Number.F32 else np.float16


class PadGeometry(ctypes.Structure):
    """`PadGeometry` of ms_deform_attn_geometry.hpp, passed on as it is."""

    _fields_ = (("words", ctypes.c_int32 * 21),)


class Geometry(ctypes.Structure):
    """`Geometry` of ms_deform_attn_geometry.hpp, passed on as it is."""

    _fields_ = (("words", ctypes.c_int32 * 34),)


class Plan(ctypes.Structure):
    """`Plan` of ms_deform_attn_launch.hpp."""

    _fields_ = (
        ("pad_kernel", ctypes.c_char * 40),
        ("gather_kernel", ctypes.c_char * 40),
        ("pad", Launch),
        ("gather", Launch),
        ("pad_geometry", PadGeometry),
        ("geometry", Geometry),
        ("records_bytes", ctypes.c_uint64),
    )


def make_plan(shapes: Shapes, number: Number, *, has_reference_points: bool) -> Plan:
    """Return the launches of one call.

    Raises:
        InputError: The kernels cannot do these shapes; says why.
        MissingDependency: No C++ compiler to make the library with that plans.
    """
    plan, shape = Plan(), shapes.pack()
    run = cpu_library().irstd_ms_deform_attn_plan
    run.restype = ctypes.c_char_p
    refused = run(
        pointer(shape), ctypes.c_int(number), ctypes.c_int(has_reference_points), ctypes.byref(plan)
    )
    if refused:
        raise InputError(f"deformable attention on a GPU: got {shapes}; {refused.decode()}")
    return plan


class MsDeformAttn:
    """Calls of one shape on arrays of a device, for networks and measurements.

    Keeps the memory that the values are rearranged in; calls belong to one stream. What it takes is
    not checked for NaN: these give NaN, and nothing outside the arrays is read or written.
    """

    def __init__(
        self, device: Device, shapes: Shapes, number: Number, *, has_reference_points: bool
    ) -> None:
        """Plan, compile and load.

        Raises:
            InputError: The kernels cannot do these shapes.
            MissingDependency: No compiler.
            BuildError: It refuses the source.
            DeviceError: Nothing that is compiled fits the device, or out of memory.
        """
        plan = make_plan(shapes, number, has_reference_points=has_reference_points)
        self._plan, self._number = plan, number
        self._pad = device.kernel(OP, plan.pad_kernel.decode())
        self._gather = device.kernel(OP, plan.gather_kernel.decode())
        self._records = device.empty((plan.records_bytes,), np.uint8)

    def __call__(
        self,
        value: object,
        offsets: object,
        logits: object,
        out: object,
        *,
        reference_points: object = None,
        scale: object = None,
        zero: object = None,
    ) -> None:
        """Put both kernels into the device's stream.

        Arrays have `__cuda_array_interface__`, the shapes and dtypes of the operator, and start at
        multiples of 16 bytes.

        Args:
            value: (N, S, M, D) float16, float32 or uint8.
            offsets: (N, Lq, M, L, P, 2), float32 where values are, else float16.
            logits: (N, Lq, M, L, P), like the offsets.
            out: (N, Lq, M * D), like the offsets; is written.
            reference_points: (N, Lq, 2) float32, if planned for.
            scale: (M,) float32 where values are uint8: they are scale * (value - zero).
            zero: (M,) float32, likewise; whole numbers from 0 to 255.

        Raises:
            InputError: An array starts elsewhere, or is not contiguous.
            DeviceError: The driver refuses the launch.
        """
        arrays = {"value": value, "offsets": offsets, "logits": logits, "out": out}
        for name, array in arrays.items():
            check_alignment(name, array)
        plan, is_u8 = self._plan, self._number is Number.U8
        self._pad(plan.pad, value, *([zero] if is_u8 else []), self._records, plan.pad_geometry)
        self._gather(
            plan.gather, self._records, *([scale, zero] if is_u8 else []),
            offsets, logits, reference_points, out, plan.geometry,
        )  # fmt: skip


def ms_deform_attn(
    device: Device,
    value: NDArray[np.floating],
    offsets: NDArray[np.floating],
    logits: NDArray[np.floating],
    reference_points: NDArray[np.float32] | None = None,
    *,
    level_hw: Sequence[int],
    query_hw: Sequence[int] = (),
) -> NDArray[np.floating]:
    """Return for every query and head the softmax-weighted sum of L * P bilinear samples.

    Args:
        device: Where it is computed.
        value: (N, S, M, D) float32 or float16, finite: the levels one after the other, each
            row-major. D is 1, 8, 16 or 32.
        offsets: (N, Lq, M, L, P, 2) of the same dtype, finite, (x, y) in pixels of the level. P is
            1 to 8.
        logits: (N, Lq, M, L, P) of the same dtype, finite.
        reference_points: (N, Lq, 2) float32, finite, (x, y) in [0, 1] of the image; None with
            `query_hw`.
        level_hw: H0, W0, H1, W1, ... of 1 to 4 levels.
        query_hw: Hq, Wq with Hq * Wq = Lq: queries are the pixels of a grid, row-major, and each
            refers to its own centre. Empty with `reference_points`.

    Returns:
        (N, Lq, M * D) of the same dtype, within 1e-5 (float32) or 2e-3 (float16) of the definition,
        relative to its largest value.

    Raises:
        InputError: An array is not as above, they do not fit together, or they are too large.
        MissingDependency: No compiler.
        DeviceError: The device is out of memory, or nothing that is compiled fits it.
    """
    is_half = isinstance(value, np.ndarray) and value.dtype == np.float16
    number = Number.F16 if is_half else Number.F32
    check_array("value", value, (None,) * 4, number.query_dtype)
    return _call(device, number, value, (), offsets, logits, reference_points, level_hw, query_hw)


def ms_deform_attn_u8(
    device: Device,
    value: NDArray[np.uint8],
    scale: NDArray[np.float32],
    zero: NDArray[np.float32],
    offsets: NDArray[np.float16],
    logits: NDArray[np.float16],
    reference_points: NDArray[np.float32] | None = None,
    *,
    level_hw: Sequence[int],
    query_hw: Sequence[int] = (),
) -> NDArray[np.floating]:
    """Return `ms_deform_attn` of the values scale * (value - zero).

    Args:
        device: Where it is computed.
        value: (N, S, M, D) uint8.
        scale: (M,) float32, finite and positive.
        zero: (M,) float32, whole numbers from 0 to 255.
        offsets: As in `ms_deform_attn`, float16, like all that follow.
        logits: ...
        reference_points: ...
        level_hw: ...
        query_hw: ...

    Returns:
        (N, Lq, M * D) float16: the definition with dequantized values, but for weights in steps of
        1 / 65535 and the rounding of the result.

    Raises:
        InputError: As in `ms_deform_attn`, or scale or zero is out of range.
        MissingDependency: No compiler.
        DeviceError: The device is out of memory, or nothing that is compiled fits it.
    """
    check_array("value", value, (None,) * 4, np.uint8)
    check_quantization(scale, zero, value.shape[2])
    return _call(
        device, Number.U8, value, (scale, zero), offsets, logits, reference_points, level_hw,
        query_hw,
    )  # fmt: skip


def _call(
    device: Device,
    number: Number,
    value: NDArray[Any],
    quantization: Sequence[NDArray[np.float32]],
    offsets: NDArray[Any],
    logits: NDArray[Any],
    reference_points: NDArray[np.float32] | None,
    level_hw: Sequence[int],
    query_hw: Sequence[int],
) -> NDArray[Any]:
    dtype = number.query_dtype
    shapes = Shapes.of(value, offsets, logits, reference_points, level_hw, query_hw, dtype)
    inputs = {"value": value, "offsets": offsets, "logits": logits}
    for name, array in {**inputs, "reference_points": reference_points}.items():
        if array is not None and array.dtype != np.uint8:
            check_range(name, array)
    has_reference_points = reference_points is not None
    attend = MsDeformAttn(device, shapes, number, has_reference_points=has_reference_points)
    out = device.empty(shapes.out, dtype)
    scale, zero = [device.array(array) for array in quantization] or (None, None)
    attend(
        device.array(value),
        device.array(offsets),
        device.array(logits),
        out,
        reference_points=None if reference_points is None else device.array(reference_points),
        scale=scale,
        zero=zero,
    )
    return out.numpy()
