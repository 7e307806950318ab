"""A launch of a kernel: its geometry, and its arguments as the device reads them."""

import ctypes
from collections.abc import Sequence

import numpy as np

from irstd.errors import InputError, UsageError

POINTER_BYTES = 8
VECTOR_BYTES = 16  # what kernels load at once


class Launch(ctypes.Structure):
    """`irstd::Launch` of launch.hpp, which the functions `irstd_<op>_launch` fill.

    Attributes:
        grid: Blocks along x, y, z.
        block: Threads of a block along x, y, z.
        shared_bytes: Dynamic shared memory of a block.
    """

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint),
    )


class Pointer(int):
    """An address in the memory of a device."""


def pack_arguments(arguments: Sequence[object]) -> bytes:
    """Return the parameter buffer of a kernel: every argument where its alignment puts it.

    Args:
        arguments: Each a Pointer (None is the null pointer), a numpy scalar of exactly the width of
            the kernel's parameter, or a ctypes.Structure. A Python number has no width.

    Raises:
        UsageError: One is something else.
    """
    packed = bytearray()
    for position, argument in enumerate(arguments):
        if argument is None or isinstance(argument, Pointer):
            data = int(argument or 0).to_bytes(POINTER_BYTES, "little")
            alignment = POINTER_BYTES
        elif isinstance(argument, np.integer | np.floating):
            data = argument.tobytes()
            alignment = len(data)
        elif isinstance(argument, ctypes.Structure):
            data = bytes(argument)
            alignment = ctypes.alignment(argument)
        else:
            raise UsageError(
                f"kernel argument {position}: got {type(argument).__name__}; wanted an array on "
                "the device, a numpy scalar (numpy.int32, numpy.float32), a structure or None"
            )
        packed += bytes(-len(packed) % alignment) + data
    return bytes(packed)


def check_alignment(name: str, array: object) -> None:
    """Check that an array on the device may be read in vectors.

    Args:
        name: What the message calls it.
        array: With `__cuda_array_interface__`.

    Raises:
        InputError: It is no such array, or does not start at a multiple of VECTOR_BYTES.
    """
    interface = getattr(array, "__cuda_array_interface__", None)
    if interface is None:
        raise InputError(f"{name}: got {type(array).__name__}; wanted an array on the device")
    if past := interface["data"][0] % VECTOR_BYTES:
        raise InputError(
            f"{name}: starts {past} bytes past a multiple of {VECTOR_BYTES}; copy it into memory "
            "of its own"
        )
