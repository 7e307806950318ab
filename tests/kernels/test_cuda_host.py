"""The harness itself: each planted fault is found, and sound kernels compute what they should."""

import ctypes
from pathlib import Path

import numpy as np
import pytest

from irstd.errors import UsageError

PLANTED = Path(__file__).resolve().parents[1] / "cuda_host" / "planted" / "planted.cu"
THREADS = 64


class Scale(ctypes.Structure):
    _fields_ = (("factor", ctypes.c_float), ("offset", ctypes.c_int))


@pytest.fixture
def planted(host_kernel):
    """A function (kernel, grid, block, *arguments, **options)."""

    def run(kernel, grid, block, *arguments, **options):
        host_kernel(PLANTED, kernel, grid, block, *arguments, **options)

    return run


@pytest.fixture
def blocks():
    """Two blocks of input, and their output."""
    return np.arange(2 * THREADS, dtype=np.float32), np.full(2 * THREADS, np.nan, np.float32)


@pytest.mark.parametrize("sanitizer", [None, "address", "thread"])
def test_sound_kernel_passes_under_every_sanitizer(planted, blocks, sanitizer):
    x, out = blocks
    planted("reverse_block", (2,), (THREADS,), x, out, sanitizer=sanitizer)
    np.testing.assert_array_equal(out, x.reshape(2, THREADS)[:, ::-1].ravel())


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_order_within_a_warp_by_syncwarp(planted, blocks, sanitizer):
    x, out = (array[:THREADS].copy() for array in blocks)
    planted("sound_in_warp", (1,), (THREADS,), x, out, shared_bytes=256, sanitizer=sanitizer)
    np.testing.assert_array_equal(out, x.reshape(-1, 2)[:, ::-1].ravel())


@pytest.mark.parametrize(
    "kernel", ["race_on_shared", "race_at_second_barrier", "race_across_shuffle"]
)
def test_race_on_shared_memory_is_found(planted, blocks, kernel):
    with pytest.raises(Exception, match="data race"):
        planted(kernel, (2,), (THREADS,), *blocks, shared_bytes=256, sanitizer="thread")


def test_race_between_blocks_is_found(planted, blocks):
    with pytest.raises(Exception, match="depends on the order of blocks"):
        planted("race_between_blocks", (2,), (THREADS,), blocks[1])


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_atomics_are_no_race(planted, sanitizer):
    counter = np.zeros(1, np.int32)
    planted("count_up", (3,), (50,), counter, sanitizer=sanitizer)
    assert counter[0] == 150


@pytest.mark.parametrize(
    ("kernel", "arguments", "report"),
    [
        ("past_global", "both", "heap-buffer-overflow"),
        ("past_dynamic_shared", "out", "heap-buffer-overflow"),
        ("past_static_shared", "out, 1", "global-buffer-overflow|insufficient space"),
        ("past_registers", "out, 4", "stack-buffer-overflow|insufficient space"),
        ("misaligned_load", "both", "misaligned address"),
    ],
)
def test_access_outside_is_found(planted, kernel, arguments, report):
    x, out = np.zeros(THREADS, np.float32), np.zeros(THREADS, np.float32)
    given = (x, out) if arguments == "both" else (out,)
    reach = [np.int32(part) for part in arguments.split(", ")[1:]]
    with pytest.raises(Exception, match=report):
        planted(kernel, (1,), (THREADS,), *given, *reach, shared_bytes=THREADS * 4)


def test_undefined_arithmetic_is_found(planted):
    out = np.zeros(THREADS, np.int32)
    with pytest.raises(Exception, match="signed integer overflow"):
        planted("overflow_of_int", (1,), (THREADS,), out, np.int32(2**31 - 8))
    with pytest.raises(Exception, match="outside the range"):
        planted("float_to_int_outside", (1,), (1,), out, np.float32(1e10))
    planted("float_to_int_saturating", (1,), (1,), out, np.float32(1e10))
    assert out[0] == 2**31 - 1


@pytest.mark.parametrize("sanitizer", [None, "address"])
def test_shared_memory_is_not_zero_and_does_not_outlive_a_block(planted, sanitizer):
    out = np.zeros(2, np.float32)
    planted(
        "unwritten_shared", (2,), (THREADS,), out, sanitizer=sanitizer, any_order=sanitizer is None
    )
    assert out[0] == 1
    assert np.isnan(out[1])


def test_threads_that_wait_for_each_other_forever_are_found(planted):
    with pytest.raises(Exception, match=r"is stuck: thread \(0, 0, 0\) waits in __syncthreads"):
        planted("barrier_in_branch", (1,), (THREADS,), np.zeros(THREADS, np.float32))
    with pytest.raises(Exception, match="lane 0 reads lane 20, which takes no part"):
        planted("shuffle_from_absent", (1,), (32,), np.zeros(32, np.float32))


def test_half_sums_round_every_time_as_numpy_does(planted, rng):
    x = rng.normal(0, 100, 32).astype(np.float16)
    out, wanted = np.zeros(32, np.float16), x.copy()
    planted("sum_of_warp", (1,), (32,), x, out)
    for lanes in (16, 8, 4, 2, 1):
        wanted = wanted + wanted[np.arange(32) ^ lanes]
    np.testing.assert_array_equal(out, wanted)


def test_indices_structs_scalars_and_null_pointers(planted):
    out = np.zeros((4, 10), np.float32)
    planted("indices", (2, 2), (8, 2), Scale(0.5, 7), None, out, np.int32(10))
    np.testing.assert_array_equal(out, 0.5 * np.arange(10) + 100 * np.arange(4)[:, None] + 7)


def test_wrong_arguments_are_told(planted):
    out = np.zeros((4, 10), np.float32)
    scale = Scale(0.5, 7)
    with pytest.raises(Exception, match="24 bytes of arguments; parameter 3 alone needs 4"):
        planted("indices", (1,), (1,), scale, None, out)
    with pytest.raises(Exception, match="40 bytes of arguments; its 4 parameters take 28"):
        planted("indices", (1,), (1,), scale, None, out, np.int32(1), np.int64(2))
    with pytest.raises(Exception, match="parameter 2 is a pointer; got 0x7, which is in no array"):
        planted("indices", (1,), (1,), scale, None, np.int64(7), np.int32(10))
    with pytest.raises(UsageError, match="kernel argument 3: got int"):
        planted("indices", (1,), (1,), scale, None, out, 10)
    with pytest.raises(Exception, match="no kernel absent; there are reverse_block"):
        planted("absent", (1,), (1,), out)
    with pytest.raises(Exception, match="2048 threads in a block"):
        planted("race_between_blocks", (1,), (2048,), out)
