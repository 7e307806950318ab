"""One call of a CPU kernel, as `irstd-bench kernels` times it."""

import dataclasses
from collections.abc import Callable, Iterator

from irstd.benchmarks.kernels.cases import Array
from irstd.benchmarks.kernels.cpu_peers import Run

OURS = "ours"


@dataclasses.dataclass(frozen=True)
class CpuCase:
    """One call of a kernel, and who else can do it.

    Attributes:
        op: Of interface.md.
        label: "reference", or its shape.
        dtype: Of the values.
        prepare: Takes the number of threads; yields OURS first, then each peer that is installed,
            with a function that computes once.
        error: Largest error of a result, relative to the largest value of the definition.
    """

    op: str
    label: str
    dtype: str
    prepare: Callable[[int], Iterator[tuple[str, Run]]]
    error: Callable[[Array], float]
