"""The roofline of one core: what its arithmetic and its memory do, measured beside the kernels."""

import ctypes
import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from irstd.runtime.kernels.arrays import pointer
from irstd.runtime.kernels.cpu_library import build_shared_library

ROUNDS = 100_000
COPIED_BYTES = 64 << 20  # more than the caches of most machines
TRIES = 9
# -O2: the chains are as long as they are written.
_FLAGS = ("-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-ffp-contract=fast")


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Peaks of one core in vectors of 32 bytes, on ARM 16; wider ones may exceed them.

    Attributes:
        float_gmac_s: 10^9 float32 multiply-adds a second; None where not measurable.
        int8_gmac_s: The same of unsigned by signed bytes, summed in 32 bits.
        copy_gb_s: 10^9 bytes read and written a second by a copy of COPIED_BYTES.
    """

    float_gmac_s: float | None
    int8_gmac_s: float | None
    copy_gb_s: float


def measure_roofline() -> Roofline:
    """Measure the core that this thread runs on: the best of some tries.

    Raises:
        MissingDependency: No C++ compiler.
        BuildError: It refuses the source.
    """
    source = Path(__file__).with_suffix(".cpp")
    library = ctypes.CDLL(str(build_shared_library("roofline", [source], _FLAGS)))
    counts = library.irstd_roofline_float, library.irstd_roofline_int8
    for function in (*counts, library.irstd_roofline_copy):
        function.restype = ctypes.c_double
    rounds = ctypes.c_long(ROUNDS)
    float_gmac_s, int8_gmac_s = (_best(functools.partial(count, rounds)) for count in counts)
    source_bytes = np.ones(COPIED_BYTES, np.uint8)
    copy = np.zeros_like(source_bytes)
    copy_gb_s = _best(
        lambda: library.irstd_roofline_copy(
            pointer(source_bytes), pointer(copy), ctypes.c_size_t(COPIED_BYTES)
        )
    )
    return Roofline(float_gmac_s or None, int8_gmac_s or None, copy_gb_s)


def _best(work: Callable[[], float]) -> float:
    """Return the most that `work` did in a nanosecond."""
    best = 0.0
    for _ in range(TRIES):
        started_ns = time.perf_counter_ns()
        done = work()
        best = max(best, done / (time.perf_counter_ns() - started_ns))
    return best
