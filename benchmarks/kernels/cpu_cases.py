"""What `irstd-bench kernels` times on a CPU."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from irstd.benchmarks.kernels import OPERATORS
from irstd.benchmarks.kernels.cases import (
    Array,
    Arrays,
    Case,
    aligned,
    check,
    make_inputs,
)
from irstd.benchmarks.kernels.cpu_case import OURS, CpuCase
from irstd.benchmarks.kernels.cpu_peers import Run, peers, work_of
from irstd.benchmarks.kernels.module_cases import module_cases
from irstd.runtime.kernels.haar_gate.cpu import haar_gate
from irstd.runtime.kernels.ms_deform_attn.cpu import ms_deform_attn, ms_deform_attn_u8
from irstd.runtime.kernels.ms_deform_attn.reference import dequantize
from irstd.runtime.kernels.spectral_split.cpu import spectral_split

SEED = 0
# Grids of queries beside the reference; levels are the grid, a half and a quarter of its side.
_GRIDS_PX = (64,)

_KERNELS: dict[str, Callable[..., Array]] = {
    "haar_gate": haar_gate,
    "spectral_split": spectral_split,
    "ms_deform_attn": ms_deform_attn,
}


def cpu_cases(op: str | None = None) -> Iterator[CpuCase]:
    """Yield the cases of one operator, or of all, drawn with a fixed seed."""
    for name in OPERATORS if op is None else (op,):
        if name == "ms_deform_attn":
            yield _attention("reference", 128)
            for side_px in _GRIDS_PX:
                yield _attention(f"{side_px}x{side_px} queries", side_px)
            yield _attention("reference", 128, "uint8")
        elif name == "ms_deform_attn_module":
            yield from module_cases()
        else:
            yield _maps(name, "reference", (1, 64, 256, 256))
            yield _maps(name, "16x512x512", (1, 16, 512, 512))


def _maps(op: str, label: str, size: tuple[int, int, int, int]) -> CpuCase:
    return _plain_case(Case(op, label, "float32", size))


def _attention(label: str, side_px: int, dtype: str = "float32") -> CpuCase:
    levels = tuple((side_px // k, side_px // k) for k in (1, 2, 4))
    case = Case(
        "ms_deform_attn", label, dtype, (1, 8, 32, 4), level_hw=levels, query_hw=(side_px, side_px)
    )
    return _plain_case(case) if dtype == "float32" else _bytes_case(case)


def _plain_case(case: Case) -> CpuCase:
    arrays = make_inputs(case, np.random.default_rng(SEED))

    def prepare(threads: int) -> Iterator[tuple[str, Run]]:
        yield OURS, _ours(_KERNELS[case.op], arrays, threads, case.keywords)
        yield from peers(work_of(case, arrays), threads)

    return CpuCase(
        case.op,
        case.label,
        case.precision,
        prepare,
        lambda result: check(case, arrays, result).error,
    )


def _bytes_case(case: Case) -> CpuCase:
    """8-bit values, which no peer has: they get the float32 values that the bytes stand for."""
    made = make_inputs(case, np.random.default_rng(SEED))
    arrays = {
        name: array if name == "value" else aligned(array, np.float32)
        for name, array in made.items()
    }  # offsets and logits of a GPU's 8-bit case are halves
    floats = {name: arrays[name] for name in ("offsets", "logits")}
    scale, zero = (made[name].astype(np.float64) for name in ("scale", "zero"))
    value = dequantize(made["value"].astype(np.uint8), scale, zero)
    floats = {"value": aligned(value, np.float32)} | floats
    in_floats = dataclasses.replace(case, precision="float32")

    def prepare(threads: int) -> Iterator[tuple[str, Run]]:
        yield OURS, _ours(ms_deform_attn_u8, arrays, threads, case.keywords)
        yield from peers(work_of(in_floats, floats), threads)

    return CpuCase(
        case.op, case.label, case.precision, prepare,
        lambda result: check(in_floats, floats, result).error,
    )  # fmt: skip


def _ours(
    kernel: Callable[..., Array], arrays: Arrays, threads: int, keywords: dict[str, Any]
) -> Run:
    out = kernel(**arrays, **keywords, threads=threads)
    return lambda: kernel(**arrays, **keywords, out=out, threads=threads)
