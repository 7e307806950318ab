"""What benchmarks check and time: the operators' shapes, one axis varied at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from irstd.runtime.kernels.arrays import on_cache_lines
from irstd.runtime.kernels.haar_gate.reference import haar_gate
from irstd.runtime.kernels.ms_deform_attn.reference import dequantize, ms_deform_attn
from irstd.runtime.kernels.spectral_split.reference import spectral_split

Array = NDArray[np.generic]
Arrays = dict[str, Array]

OPERATORS = ("haar_gate", "ms_deform_attn", "spectral_split")
PRECISIONS = ("float32", "float16", "uint8")
# Largest error relative to the largest |reference|. Halves carry 11 bits, and every product of the
# kernels is rounded to one; 8-bit values are compared with the very numbers they stand for.
TOLERANCES = {"float32": 1e-5, "float16": 2e-3, "uint8": 2e-3}
HUGE_LOGIT = 200.0  # no float holds its exponential
HUGE_MAP = 20.0  # saturates the gates
MOST_QUERIES = 4096  # that are compared: the definition takes gigabytes for those of a large grid


@dataclass(frozen=True)
class Case:
    """One call of an operator.

    Attributes:
        op: One of OPERATORS.
        label: What is particular about it.
        precision: Of values, results and, in deformable attention, offsets and logits; "uint8" is
            8-bit values with everything else in half.
        size: (N, C, H, W) of haar_gate and spectral_split; (N, M, D, P) of ms_deform_attn.
        level_hw: (height, width) of each level.
        query_hw: Grid of the queries.
        content: How the inputs are drawn, one of CONTENTS.
        explicit: Pass the reference points of the grid instead of `query_hw`.
    """

    op: str
    label: str
    precision: str
    size: tuple[int, int, int, int]
    level_hw: tuple[tuple[int, int], ...] = ()
    query_hw: tuple[int, int] = (0, 0)
    content: str = "noise"
    explicit: bool = False

    @property
    def name(self) -> str:
        """Operator, what is particular, precision."""
        return f"{self.op} {self.label} {self.precision}"

    @property
    def keywords(self) -> dict[str, Sequence[int]]:
        """The attributes of the call."""
        if self.op != "ms_deform_attn":
            return {}
        flat = [side for level in self.level_hw for side in level]
        return {"level_hw": flat, "query_hw": [] if self.explicit else list(self.query_hw)}


CONTENTS = ("noise", "constant", "huge", "centres", "borders", "outside")

_HAAR = Case("haar_gate", "default", "float32", (1, 24, 33, 40))
_SPLIT = Case("spectral_split", "default", "float32", (1, 8, 32, 32))
_ATTN = Case(
    "ms_deform_attn", "default", "float32", (1, 8, 32, 4),
    level_hw=((24, 20), (12, 10), (6, 5)), query_hw=(12, 10),
)  # fmt: skip


def check_cases() -> Iterator[Case]:
    """Yield the cases whose results are compared with the definition."""
    for precision in ("float32", "float16"):
        for default in (_HAAR, _SPLIT):
            yield from _maps(replace(default, precision=precision))
    for precision in PRECISIONS:
        yield from _attention(replace(_ATTN, precision=precision))


def timed_cases() -> Iterator[Case]:
    """Yield what goals are stated for ("reference"), and deformable attention on larger maps."""
    for op in ("haar_gate", "spectral_split"):
        for precision in ("float16", "float32"):
            yield Case(op, "reference", precision, (1, 64, 256, 256))
    for label, side in (("reference", 128), ("256 x 256 queries", 256)):
        levels = tuple((side // k, side // k) for k in (1, 2, 4))
        for precision in ("float16", "uint8", "float32"):
            yield Case(
                "ms_deform_attn", label, precision, (1, 8, 32, 4),
                level_hw=levels, query_hw=(side, side),
            )  # fmt: skip


def _maps(default: Case) -> Iterator[Case]:
    yield default
    _, c, h, w = default.size
    for size in [
        (2, c, h, w),
        *((1, channels, h, w) for channels in (1, 3, 64)),
        *_SIDES[default.op],
    ]:
        yield replace(default, label=" x ".join(map(str, size)), size=size)
    yield replace(default, label="constant", content="constant")
    yield replace(default, label="huge", content="huge")


# The spectral split on a GPU takes sides that are powers of two from 32 to 512 px.
_SIDES: dict[str, list[tuple[int, int, int, int]]] = {
    "haar_gate": [
        (1, 24, 1, 40), (1, 24, 33, 1), (1, 24, 1, 1), (1, 24, 2, 2), (1, 24, 64, 40),
        (1, 24, 33, 64), (1, 24, 61, 40), (1, 24, 33, 61), (1, 4, 200, 300),
    ],
    "spectral_split": [
        (1, 8, 64, 32), (1, 8, 32, 64), (1, 8, 128, 128), (1, 8, 512, 32), (1, 8, 32, 512),
        (1, 2, 256, 128), (1, 2, 128, 256), (1, 1, 512, 512),
    ],
}  # fmt: skip


def _attention(default: Case) -> Iterator[Case]:
    yield default
    n, m, d, p = default.size
    for d_head in (1, 8, 16):
        yield replace(default, label=f"d_head {d_head}", size=(n, m, d_head, p))
    for heads in (1, 3):
        yield replace(default, label=f"heads {heads}", size=(n, heads, d, p))
    for points in (1, 8):
        yield replace(default, label=f"points {points}", size=(n, m, d, points))
    yield replace(default, label="batch 2", size=(2, m, d, p))
    levels = (*default.level_hw, (3, 3))
    for count in (2, 4):
        yield replace(default, label=f"levels {count}", level_hw=levels[:count])
    yield replace(default, label="1x1 maps", level_hw=((1, 1),) * 3)
    yield replace(default, label="odd sizes", level_hw=((23, 17), (11, 7), (5, 3)))
    yield replace(default, label="one query", query_hw=(1, 1))
    yield replace(default, label="odd queries", query_hw=(7, 13))
    yield replace(default, label="reference points", explicit=True)
    for content in CONTENTS[1:]:
        yield replace(default, label=content, content=content)


def make_inputs(case: Case, rng: np.random.Generator) -> Arrays:
    """Return the arrays of a case in its precision, keyed by the operator's parameters.

    They start on cache lines, as the tensors of every engine do.
    """
    return {name: aligned(array) for name, array in _MAKERS[case.op](case, rng).items()}


def aligned(array: Array, dtype: type[np.generic] | None = None) -> Array:
    """Return a copy that starts on a cache line, in another dtype if one is given."""
    copy = on_cache_lines(array.shape, dtype or array.dtype.type)
    copy[...] = array
    return copy


def definition(case: Case, arrays: Mapping[str, Array]) -> NDArray[np.float64]:
    """Return what the definition makes of the arrays, in float64."""
    if case.op == "haar_gate":
        return haar_gate(**_floats(arrays))
    if case.op == "spectral_split":
        return spectral_split(**_floats(arrays))
    values = dict(arrays)
    if case.precision == "uint8":
        scale, zero = _floats({"scale": values.pop("scale"), "zero": values.pop("zero")}).values()
        values["value"] = dequantize(values["value"].astype(np.uint8), scale, zero)
    given = _floats(values)
    return ms_deform_attn(
        given["value"],
        given["offsets"],
        given["logits"],
        given.get("reference_points"),
        level_hw=case.keywords["level_hw"],
        query_hw=case.keywords["query_hw"],
    )


def compulsory_bytes(arrays: Mapping[str, Array], result: Array) -> int:
    """Return the bytes of every input and of the result: each must cross the memory bus once."""
    return sum(array.nbytes for array in arrays.values()) + result.nbytes


def result_dtype(case: Case) -> type[np.floating]:
    """Return the dtype of the result."""
    return np.float32 if case.precision == "float32" else np.float16


@dataclass(frozen=True)
class Check:
    """How far a result is from the definition, relative to the largest |reference|."""

    case: Case
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether it is within the tolerance; NaN is not."""
        return self.error <= self.tolerance


def check(case: Case, arrays: Mapping[str, Array], result: Array) -> Check:
    """Compare a result with the definition; of a large grid of queries, MOST_QUERIES of them."""
    tolerance = TOLERANCES[case.precision]
    queries = case.query_hw[0] * case.query_hw[1]
    if queries > MOST_QUERIES and result.ndim == 3:
        some = np.random.default_rng(0).choice(queries, MOST_QUERIES, replace=False)
        part = dict(arrays, reference_points=reference_points(case))
        for name in ("offsets", "logits", "reference_points"):
            part[name] = part[name][:, some]
        case, arrays, result = replace(case, explicit=True), part, result[:, some]
    wanted = definition(case, arrays)
    if result.shape != wanted.shape:
        return Check(case, float("inf"), tolerance)
    scale = float(np.abs(wanted).max()) or 1.0
    error = float(np.abs(result.astype(np.float64) - wanted).max()) / scale
    return Check(case, error, tolerance)


def _floats(arrays: Mapping[str, Array]) -> dict[str, NDArray[np.float64]]:
    return {name: array.astype(np.float64) for name, array in arrays.items()}


def _map(case: Case, rng: np.random.Generator) -> Array:
    if case.content == "constant":
        x = np.full(case.size, 1.7)
    else:
        x = rng.standard_normal(case.size) + 1.0
        x *= HUGE_MAP if case.content == "huge" else 1.0
    return x.astype(result_dtype(case))


def _haar_inputs(case: Case, rng: np.random.Generator) -> Arrays:
    return {
        "x": _map(case, rng),
        "weight": (0.2 * rng.standard_normal((4, 2, 7, 7))).astype(np.float32),
        "bias": rng.standard_normal(4).astype(np.float32),
    }


def _split_inputs(case: Case, rng: np.random.Generator) -> Arrays:
    channels = case.size[1]
    return {
        "x": _map(case, rng),
        "cutoff": rng.uniform(0.02, 0.5, channels).astype(np.float32),
        "gate_weight": (0.2 * rng.standard_normal((2, 2, 7, 7))).astype(np.float32),
        "gate_bias": rng.standard_normal(2).astype(np.float32),
        "gamma": rng.uniform(0.5, 1.5, (2, channels)).astype(np.float32),
    }


def _attention_inputs(case: Case, rng: np.random.Generator) -> Arrays:
    n, m, d, p = case.size
    levels, queries = len(case.level_hw), case.query_hw[0] * case.query_hw[1]
    positions = sum(height * width for height, width in case.level_hw)
    dtype = result_dtype(case)
    shape = (n, queries, m, levels, p)
    logits = rng.standard_normal(shape) * (HUGE_LOGIT if case.content == "huge" else 1.0)
    value = rng.standard_normal((n, positions, m, d))
    if case.content == "constant":
        value[:] = 0.7
    arrays: Arrays = {
        "value": value.astype(dtype),
        "offsets": _offsets(case, (*shape, 2), rng).astype(dtype),
        "logits": logits.astype(dtype),
    }
    if case.precision == "uint8":
        arrays["value"] = rng.integers(0, 256, value.shape, np.uint8)
        arrays["scale"] = rng.uniform(0.01, 0.03, m).astype(np.float32)
        arrays["zero"] = rng.integers(100, 156, m).astype(np.float32)
    if case.explicit:
        arrays["reference_points"] = reference_points(case)
    return arrays


def reference_points(case: Case) -> NDArray[np.float32]:
    """Return (N, Lq, 2): the centres of the queries' pixels."""
    height, width = case.query_hw
    y, x = np.mgrid[:height, :width]
    centres = np.stack([(x + 0.5) / width, (y + 0.5) / height], -1).reshape(1, -1, 2)
    return np.repeat(centres, case.size[0], 0).astype(np.float32)


def _offsets(case: Case, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return offsets in px: noise of 3 px, or what sends the points where the content says."""
    if case.content == "centres":
        return rng.integers(-3, 4, shape).astype(np.float64)
    if case.content == "borders":
        return rng.choice([-64.0, -32.5, -0.5, 0.5, 32.5, 64.0], shape)
    if case.content == "outside":
        return rng.choice([-60000.0, 60000.0], shape)
    return 3.0 * rng.standard_normal(shape)


_MAKERS: dict[str, Callable[[Case, np.random.Generator], Arrays]] = {
    "haar_gate": _haar_inputs,
    "ms_deform_attn": _attention_inputs,
    "spectral_split": _split_inputs,
}
