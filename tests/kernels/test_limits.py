"""Kernels on a CPU at the end of what a machine and their numbers hold."""

import numpy as np
import pytest

from irstd.errors import InputError
from irstd.runtime.kernels.arrays import MOST_OF_AXIS, MOST_OF_MAP, check_array, check_maps
from irstd.runtime.kernels.ms_deform_attn.shapes import check_levels

# Everything but the kernel's own memory is there before the process is denied any more of it.
CODE = """
import resource
import sys

import numpy as np

from irstd.errors import DeviceError
from irstd.runtime.kernels.cpu_library import cpu_library
from irstd.runtime.kernels.haar_gate.cpu import haar_gate
from irstd.runtime.kernels.ms_deform_attn.cpu import ms_deform_attn
from irstd.runtime.kernels.spectral_split.cpu import spectral_split

def zeros(*shape):
    return np.zeros(shape, np.float32)

def haar():
    shape = (1, 1, 1, 1 << 20)
    return haar_gate, (zeros(*shape), zeros(4, 2, 7, 7), zeros(4)), {"out": zeros(*shape)}

def split():
    shape = (1, 1, 2048, 2048)
    arrays = (zeros(*shape), zeros(1) + 0.1, zeros(2, 2, 7, 7), zeros(2), zeros(2, 1))
    return spectral_split, arrays, {"out": zeros(*shape), "work": zeros(*shape[1:])}

def attention():
    arrays = (zeros(1, 1024 * 1024, 1, 8), zeros(1, 4, 1, 1, 4, 2), zeros(1, 4, 1, 1, 4))
    sides = {"level_hw": (1024, 1024), "query_hw": (2, 2)}
    return ms_deform_attn, arrays, {**sides, "out": zeros(1, 4, 8)}

kernel, arrays, keywords = {"haar": haar, "split": split, "attention": attention}[sys.argv[1]]()
cpu_library()
pages = int(open("/proc/self/statm").read().split()[0])
most = resource.getrlimit(resource.RLIMIT_AS)[1]
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (8 << 20), most))
for _ in range(2):
    try:
        kernel(*arrays, **keywords)
    except DeviceError as error:
        print(error)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
kernel(*arrays, **keywords)
print("computed")
"""


@pytest.mark.parametrize("kernel", ["haar", "split", "attention"])
def test_no_memory_is_an_error_and_not_the_end(kernel, run_python):
    *refused, last = run_python(CODE, kernel).splitlines()
    assert refused == ["out of memory: fewer threads, or smaller maps, need less"] * 2
    assert last == "computed"


def virtual(*shape: int) -> np.ndarray:
    """Return an array that takes no memory until it is written to."""
    return np.empty(shape, np.uint8)


def test_axes_that_int_does_not_count_are_refused():
    check_array("x", virtual(MOST_OF_AXIS), (None,), np.uint8)
    with pytest.raises(InputError, match=r"x: got \(2147483648,\) uint8; wanted \(any\)"):
        check_array("x", virtual(MOST_OF_AXIS + 1), (None,), np.uint8)


def test_maps_of_more_pixels_than_int_counts_are_refused():
    height = 2**10
    width = MOST_OF_MAP // height
    assert check_maps("x", virtual(1, 1, height, width), np.uint8) == (1, 1, height, width)
    with pytest.raises(InputError, match=r"x: got 1024 x 131073 px; wanted at most 134217728 px"):
        check_maps("x", virtual(1, 1, height, width + 1), np.uint8)


@pytest.mark.parametrize(
    ("level_hw", "d_head", "message"),
    [
        ((4095, 4095), 1, "at most 2^24 pixels in a level"),
        ((4000, 4000) * 2, 32, "got 32000000 x 32 numbers a head; wanted at most 2^28"),
        ((8, 8), 4, "got d_head 4; wanted one of (1, 8, 16, 32)"),
    ],
)
def test_levels_of_more_positions_than_the_kernels_number(level_hw, d_head, message):
    values = sum(h * w for h, w in zip(level_hw[::2], level_hw[1::2], strict=True))
    with pytest.raises(InputError) as error:
        check_levels(level_hw, values, d_head)
    assert message in str(error.value)


def test_the_largest_levels_are_taken():
    assert check_levels((4094, 4094), 4094 * 4094, 16) == 1
