"""The module of deformable attention on a CPU, in float32 and integers, against its definition."""

import ctypes
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from irstd.errors import InputError
from irstd.runtime.kernels import cpu_library
from irstd.runtime.kernels.ms_deform_attn import module, reference
from irstd.runtime.kernels.ms_deform_attn.module import ms_deform_attn_module
from irstd.runtime.kernels.ms_deform_attn.projections import (
    observe,
    pack_projections,
    pack_projections_u8,
    quantize_weights,
)

RELATIVE = 1e-5  # float32 against float64, of the largest value
# Integers, of the largest value: activations in 8 bits, weights in 7; inexact offsets move samples.
RELATIVE_U8 = 0.06
# The same of the whole result, root mean square.
RELATIVE_U8_RMS = 0.03


@dataclass(frozen=True)
class Case:
    images: int = 1
    channels: int = 24
    results: int = 20
    heads: int = 3
    d_head: int = 8
    points: int = 4
    level_hw: tuple[int, ...] = (12, 20, 6, 10)
    query_hw: tuple[int, int] = (12, 20)

    @property
    def where(self):
        return {"level_hw": self.level_hw, "query_hw": self.query_hw}

    def projections(self, rng):
        values, logits = (
            self.heads * self.d_head,
            self.heads * len(self.level_hw) // 2 * self.points,
        )
        sizes = [
            (values, self.channels),
            (2 * logits, self.channels),
            (logits, self.channels),
            (self.results, values),
        ]
        layers = []
        for size in sizes:
            layers.append((rng.standard_normal(size) / np.sqrt(size[1])).astype(np.float32))
            layers.append(rng.standard_normal(size[0]).astype(np.float32))
        return reference.Projections(*layers)

    def inputs(self, rng: Any) -> tuple[Any, Any]:
        """Query, source."""
        sides = self.level_hw
        values = sum(h * w for h, w in zip(sides[::2], sides[1::2], strict=True))
        queries = self.query_hw[0] * self.query_hw[1]
        query, source = (
            rng.standard_normal((self.images, rows, self.channels)).astype(np.float32)
            for rows in (queries, values)
        )
        return query, source


DEFAULT = Case()
# One axis at a time: channels (fours of bytes and what is left), results and values (panels of 16,
# the last not full), queries and positions (bands of 96, strips of 6 and 4, tiles of 16).
CASES = [
    DEFAULT,
    replace(DEFAULT, images=2),
    *(replace(DEFAULT, channels=channels) for channels in (1, 7, 16, 33)),
    *(replace(DEFAULT, results=results) for results in (1, 16, 17)),
    *(replace(DEFAULT, heads=heads) for heads in (1, 2, 4)),
    *(replace(DEFAULT, d_head=d_head) for d_head in (16, 32)),
    *(replace(DEFAULT, points=points) for points in (1, 3, 8)),
    *(replace(DEFAULT, level_hw=(12, 20, 6, 10, 3, 5, 2, 3)[: 2 * n]) for n in (1, 3, 4)),
    *(replace(DEFAULT, query_hw=hw) for hw in ((1, 1), (5, 7), (8, 12), (1, 97))),
    replace(DEFAULT, level_hw=(1, 1)),
]


def define(case, projections, inputs, references=None):
    where = case.where if references is None else {"level_hw": case.level_hw}
    return reference.ms_deform_attn_module(
        *inputs, projections, references, heads=case.heads, **where
    )


def assert_close(result, wanted):
    assert result.dtype == np.float32
    assert result.shape == wanted.shape
    assert np.abs(result - wanted).max() <= RELATIVE * np.abs(wanted).max()


def assert_like(result, wanted):
    assert result.shape == wanted.shape
    error = np.abs(result - wanted)
    assert error.max() <= RELATIVE_U8 * np.abs(wanted).max()
    assert np.sqrt((error**2).mean()) <= RELATIVE_U8_RMS * np.sqrt((wanted**2).mean())


@pytest.mark.parametrize("case", [*CASES, replace(DEFAULT, d_head=1)], ids=str)
def test_it_computes_what_the_definition_says(case, rng):
    projections, inputs = case.projections(rng), case.inputs(rng)
    packed = pack_projections(projections, case.heads)
    assert_close(
        ms_deform_attn_module(*inputs, packed, **case.where), define(case, projections, inputs)
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_integers_come_close(case, rng):
    projections, inputs = case.projections(rng), case.inputs(rng)
    packed = pack_projections_u8(
        projections, case.heads, observe(inputs[0], inputs[1], projections, case.heads)
    )
    assert_like(
        ms_deform_attn_module(*inputs, packed, **case.where), define(case, projections, inputs)
    )


@pytest.mark.parametrize("extreme", [False, True])
def test_integer_products_are_exact(extreme, rng, monkeypatch):
    """The values of the module are those of whole numbers, also of the largest ones."""
    case = replace(DEFAULT, channels=256)
    projections, (query, source) = case.projections(rng), case.inputs(rng)
    if extreme:  # bytes of 255 and weights of 64
        source[:] = np.where(rng.random(source.shape) < 0.9, 5, -1)
        sign = np.where(rng.random(projections.value_weight.shape) < 0.9, 1, -1)
        projections = replace(projections, value_weight=sign.astype(np.float32) / 256)
    quantization = observe(query, source, projections, case.heads)
    packed = pack_projections_u8(projections, case.heads, quantization)
    allocated = []
    make = module.on_cache_lines
    monkeypatch.setattr(
        module, "on_cache_lines", lambda *a: allocated.append(make(*a)) or allocated[-1]
    )
    ms_deform_attn_module(query, source, packed, **case.where)
    values = next(a for a in allocated if a.dtype == np.uint8 and a.ndim == 4)

    q = quantization
    whole = np.clip(np.round(source / q.source_scale + q.source_zero), 0, 255).astype(np.int64)
    weight, scale = quantize_weights(projections.value_weight, 64)
    product = (whole - q.source_zero) @ weight.astype(np.int64).T
    value = product * scale * q.source_scale + projections.value_bias
    step = np.repeat(q.value_scale, case.d_head), np.repeat(q.value_zero, case.d_head)
    wanted = (value / step[0] + step[1]).reshape(values.shape)
    assert np.abs(values - np.clip(wanted, 0, 255)).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("d_head", [8, 32])
def test_reference_points(d_head, rng):
    case = replace(DEFAULT, images=2, d_head=d_head)
    projections, inputs = case.projections(rng), case.inputs(rng)
    references = rng.uniform(-0.2, 1.2, (*inputs[0].shape[:2], 2)).astype(np.float32)
    wanted = define(case, projections, inputs, references)
    packed = pack_projections(projections, case.heads)
    result = ms_deform_attn_module(*inputs, packed, references, level_hw=case.level_hw)
    assert_close(result, wanted)
    packed = pack_projections_u8(projections, case.heads, observe(*inputs, projections, case.heads))
    assert_like(ms_deform_attn_module(*inputs, packed, references, level_hw=case.level_hw), wanted)


@pytest.mark.parametrize("threads", [1, 2, 3, 64])
def test_threads_share_rows_heads_and_queries(threads, rng):
    case = replace(DEFAULT, images=2)
    projections, inputs = case.projections(rng), case.inputs(rng)
    for packed in (
        pack_projections(projections, case.heads),
        pack_projections_u8(projections, case.heads, observe(*inputs, projections, case.heads)),
    ):
        np.testing.assert_array_equal(
            ms_deform_attn_module(*inputs, packed, **case.where, threads=threads),
            ms_deform_attn_module(*inputs, packed, **case.where),
        )


def test_processors_without_long_vectors_compute_the_same(rng, monkeypatch):
    sources = sorted((cpu_library.FOLDER / "ms_deform_attn").glob("*_cpu.cpp"))
    path = cpu_library.build_shared_library(
        "ms_deform_attn_plain", sources, (*cpu_library.CPU_FLAGS, "-DIRSTD_PLAIN")
    )
    library = ctypes.CDLL(str(path))
    monkeypatch.setattr(module, "cpu_library", lambda: library)
    projections, inputs = DEFAULT.projections(rng), DEFAULT.inputs(rng)
    wanted = define(DEFAULT, projections, inputs)
    packed = pack_projections(projections, 3)
    assert_close(ms_deform_attn_module(*inputs, packed, **DEFAULT.where), wanted)
    packed = pack_projections_u8(projections, 3, observe(*inputs, projections, 3))
    assert_like(ms_deform_attn_module(*inputs, packed, **DEFAULT.where), wanted)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["query", "source"])
@pytest.mark.parametrize("is_integer", [False, True])
def test_inputs_that_are_no_numbers_are_refused(is_integer, name, number, rng):
    projections, inputs = DEFAULT.projections(rng), DEFAULT.inputs(rng)
    packed = (
        pack_projections_u8(projections, 3, observe(*inputs, projections, 3))
        if is_integer
        else pack_projections(projections, 3)
    )
    inputs[name == "source"][0, -1, -1] = number
    with pytest.raises(InputError, match="NaN or infinity"):
        ms_deform_attn_module(*inputs, packed, **DEFAULT.where)


def test_layers_that_do_not_fit_are_refused(rng):
    projections, (query, source) = DEFAULT.projections(rng), DEFAULT.inputs(rng)
    with pytest.raises(InputError, match="heads: got 5 for 24 values, 24 logits"):
        pack_projections(projections, 5)
    short = replace(projections, output_weight=projections.output_weight[:, :-1].copy())
    with pytest.raises(InputError, match="output_weight: got"):
        pack_projections(short, 3)
    broken = replace(projections, value_bias=np.full(24, np.nan, np.float32))
    with pytest.raises(InputError, match="value_weight, value_bias: hold NaN"):
        pack_projections(broken, 3)
    packed = pack_projections(projections, 3)
    with pytest.raises(InputError, match=r"query: got .* wanted \(any, any, 24\)"):
        ms_deform_attn_module(query[..., :-1].copy(), source, packed, **DEFAULT.where)
    with pytest.raises(
        InputError, match="24 logits; wanted 1 to 8 for each of 3 heads on 3 levels"
    ):
        ms_deform_attn_module(
            query, source[:, :260].copy(), packed, level_hw=(12, 20, 3, 5, 1, 5), query_hw=(12, 20)
        )


def test_quantizations_out_of_range_are_refused(rng):
    projections, inputs = DEFAULT.projections(rng), DEFAULT.inputs(rng)
    good = observe(*inputs, projections, 3)
    for changes, message in (
        ({"query_scale": 0.0}, "query: got scale 0.0"),
        ({"source_zero": 256}, "source: got scale .*, zero 256"),
        ({"value_zero": np.full(3, 0.5, np.float32)}, "zero: got"),
    ):
        with pytest.raises(InputError, match=message):
            pack_projections_u8(projections, 3, replace(good, **changes))
    single = replace(DEFAULT, d_head=1).projections(rng)
    with pytest.raises(InputError, match="got d_head 1; wanted 8, 16 or 32"):
        pack_projections_u8(single, 3, good)
