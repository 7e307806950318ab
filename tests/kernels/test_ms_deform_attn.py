"""Deformable attention on a CPU against its definition, in float32 and with bytes as values."""

import ctypes
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from irstd.runtime.kernels import cpu_library
from irstd.runtime.kernels.ms_deform_attn import cpu, reference
from irstd.runtime.kernels.ms_deform_attn.cpu import ms_deform_attn, ms_deform_attn_u8

RELATIVE = 1e-5  # float32 against float64, of the largest value
# Of a scale: weights in 255ths move a sample by up to 2 / 255 of its values' differences, which are
# up to 255 scales.
BYTE_STEPS = 2.0


@dataclass(frozen=True)
class Case:
    images: int = 1
    heads: int = 3
    d_head: int = 32
    points: int = 4
    level_hw: tuple[int, ...] = (12, 20, 6, 10, 3, 5)
    query_hw: tuple[int, int] = (12, 20)
    spread_px: float = 2.0
    names: str = field(default="", compare=False)

    @property
    def shape(self):
        """N, Lq, M, L, P of the logits."""
        queries = self.query_hw[0] * self.query_hw[1]
        return self.images, queries, self.heads, len(self.level_hw) // 2, self.points

    @property
    def where(self):
        return {"level_hw": self.level_hw, "query_hw": self.query_hw}

    def value_shape(self):
        sides = self.level_hw
        values = sum(h * w for h, w in zip(sides[::2], sides[1::2], strict=True))
        return self.images, values, self.heads, self.d_head

    def inputs(self, rng):
        """Value, offsets, logits."""
        arrays = (
            rng.standard_normal(self.value_shape()),
            self.spread_px * rng.standard_normal((*self.shape, 2)),
            2 * rng.standard_normal(self.shape),
        )
        return tuple(array.astype(np.float32) for array in arrays)

    def bytes(self, rng):
        """Value, scale, zero, offsets, logits."""
        value = rng.integers(0, 256, self.value_shape(), np.uint8)
        scale = rng.uniform(0.01, 0.1, self.heads).astype(np.float32)
        zero = rng.integers(0, 256, self.heads).astype(np.float32)
        return value, scale, zero, *self.inputs(rng)[1:]


DEFAULT = Case()
# One axis at a time: levels, points (transposed by fours and what is left), queries (tiles of 16),
# sizes of maps, offsets.
CASES = [
    DEFAULT,
    replace(DEFAULT, images=3),
    *(replace(DEFAULT, heads=heads) for heads in (1, 2, 8)),
    *(replace(DEFAULT, d_head=d_head) for d_head in (1, 8, 16)),
    *(replace(DEFAULT, points=points) for points in (1, 2, 3, 5, 8)),
    *(replace(DEFAULT, level_hw=(12, 20, 6, 10, 3, 5, 2, 3)[: 2 * n]) for n in (1, 2, 4)),
    replace(DEFAULT, level_hw=(12, 20, 6, 10, 3, 5, 2, 3), points=8),
    *(replace(DEFAULT, query_hw=hw) for hw in ((1, 1), (1, 15), (1, 16), (17, 1), (5, 7), (3, 33))),
    *(replace(DEFAULT, level_hw=hw) for hw in ((1, 1), (1, 9), (9, 1), (1, 1, 1, 1), (2, 2, 7, 3))),
    *(replace(DEFAULT, spread_px=px) for px in (0.0, 0.01, 30.0, 1e6, 1e30)),
    Case(1, 1, 1, 1, (1, 1), (1, 1)),
]
EVERY_D_HEAD = [replace(DEFAULT, d_head=d_head) for d_head in (1, 8, 16, 32)]


def assert_close(result, wanted):
    assert result.dtype == np.float32
    assert result.shape == wanted.shape
    assert np.abs(result - wanted).max() <= RELATIVE * np.abs(wanted).max()


def assert_close_in_steps(result, wanted, scale, steps=BYTE_STEPS):
    """Compare (N, Lq, M * D) results relative to the scales of the heads."""
    assert result.dtype == np.float32
    assert result.shape == wanted.shape
    error = np.abs(result - wanted).reshape(*wanted.shape[:2], len(scale), -1)
    assert (error / scale[:, None]).max() <= steps


def define(inputs, case, references=None):
    where = case.where if references is None else {"level_hw": case.level_hw}
    return reference.ms_deform_attn(*inputs, references, **where)


def define_u8(inputs, case, references=None):
    value = reference.dequantize(*inputs[:3])
    return define((value, *inputs[3:]), case, references)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_computes_what_the_definition_says(case, rng):
    inputs = case.inputs(rng)
    assert_close(ms_deform_attn(*inputs, **case.where), define(inputs, case))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bytes_are_as_good_as_their_steps(case, rng):
    inputs = case.bytes(rng)
    assert_close_in_steps(
        ms_deform_attn_u8(*inputs, **case.where), define_u8(inputs, case), inputs[1]
    )


def test_bytes_of_smooth_maps_cost_little(rng):
    """Neighbours of a real map differ by a few steps: rounded weights then cost far below one."""
    value, *others = DEFAULT.bytes(rng)
    level = 128 + 10 * np.sin(np.arange(value.shape[1]) / 3)
    value[:] = level[None, :, None, None].astype(np.uint8)
    inputs = (value, *others)
    result = ms_deform_attn_u8(*inputs, **DEFAULT.where)
    assert_close_in_steps(result, define_u8(inputs, replace(DEFAULT)), inputs[1], steps=0.5)


@pytest.mark.parametrize("case", EVERY_D_HEAD, ids=str)
def test_reference_points(case, rng):
    """Anywhere, also outside the image, instead of the queries' own places."""
    inputs, inputs_u8 = case.inputs(rng), case.bytes(rng)
    references = rng.uniform(-0.2, 1.2, (*case.shape[:2], 2)).astype(np.float32)
    result = ms_deform_attn(*inputs, references, level_hw=case.level_hw)
    assert_close(result, define(inputs, case, references))
    result = ms_deform_attn_u8(*inputs_u8, references, level_hw=case.level_hw)
    assert_close_in_steps(result, define_u8(inputs_u8, case, references), inputs_u8[1])


@pytest.mark.parametrize("case", EVERY_D_HEAD, ids=str)
def test_whole_offsets_take_pixels_as_they_are(case, rng):
    """On a level of the queries' size, a whole offset samples exactly one pixel, or nothing."""
    case = replace(case, level_hw=(12, 20), points=1)
    value, offsets, logits = case.inputs(rng)
    offsets[:] = rng.integers(-15, 16, offsets.shape)
    result = ms_deform_attn(value, offsets, logits, **case.where)
    assert_close(result, define((value, offsets, logits), case))
    assert np.isin(result.reshape(-1, 3, case.d_head)[:, 0, 0], [*value[0, :, 0, 0], 0]).all()


@pytest.mark.parametrize("beyond_px", [-1.0, -0.5, -1e-3, 0.0, 1e-3, 0.5, 1.0])
@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
def test_points_about_the_border(side, beyond_px, rng):
    """Half a pixel outside, half of the value is left; at one pixel, nothing."""
    case = replace(DEFAULT, query_hw=(1, 1), level_hw=(7, 5), points=1)
    value, offsets, logits = case.inputs(rng)
    x, y = {"left": (-2, 0), "right": (2, 0), "top": (0, -3), "bottom": (0, 3)}[side]
    away = beyond_px * np.sign([x, y])
    offsets[:] = np.array([x, y]) + away
    inputs = (value, offsets, logits)
    result = ms_deform_attn(*inputs, **case.where)
    assert_close(result, define(inputs, case))
    assert np.any(result) == (beyond_px < 1)


@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_huge_logits(shift, rng):
    value, offsets, logits = DEFAULT.inputs(rng)
    logits[..., 0, 0] += shift
    assert_close(
        ms_deform_attn(value, offsets, logits, **DEFAULT.where),
        define((value, offsets, logits), DEFAULT),
    )


def test_a_constant_map_is_constant_inside(rng):
    _, offsets, logits = DEFAULT.inputs(rng)
    value = np.full(DEFAULT.value_shape(), 7, np.float32)
    result = ms_deform_attn(value, 0 * offsets, logits, **replace(DEFAULT).where)
    inner = result.reshape(12, 20, -1)[4:8, 4:16]
    np.testing.assert_allclose(inner, 7, rtol=1e-6)


@pytest.mark.parametrize("threads", [1, 2, 3, 64])
def test_threads_share_the_queries_of_all_heads(threads, rng):
    case = replace(DEFAULT, images=2, query_hw=(5, 7))
    inputs, inputs_u8 = case.inputs(rng), case.bytes(rng)
    np.testing.assert_array_equal(
        ms_deform_attn(*inputs, **case.where, threads=threads),
        ms_deform_attn(*inputs, **case.where),
    )
    np.testing.assert_array_equal(
        ms_deform_attn_u8(*inputs_u8, **case.where, threads=threads),
        ms_deform_attn_u8(*inputs_u8, **case.where),
    )


@pytest.mark.parametrize("case", EVERY_D_HEAD, ids=str)
@pytest.mark.parametrize("shift", [0, 1, 4])
def test_it_writes_where_it_is_asked_to(case, shift, rng):
    """Also off the alignment of vectors and of lines of the cache."""
    inputs = case.inputs(rng)
    wanted = define(inputs, case)
    whole = np.full(wanted.size + 32, np.float32(3))
    first = 16 - (whole.ctypes.data // 4) % 16 + shift
    out = whole[first : first + wanted.size].reshape(wanted.shape)
    assert ms_deform_attn(*inputs, **case.where, out=out) is out
    assert_close(out, wanted)
    assert (whole[:first] == 3).all()
    assert (whole[first + wanted.size :] == 3).all()


@pytest.mark.parametrize("case", EVERY_D_HEAD, ids=str)
def test_processors_without_long_vectors_compute_the_same(case, rng, monkeypatch):
    sources = sorted((cpu_library.FOLDER / "ms_deform_attn").glob("*_cpu.cpp"))
    path = cpu_library.build_shared_library(
        "ms_deform_attn_plain", sources, (*cpu_library.CPU_FLAGS, "-DIRSTD_PLAIN")
    )
    inputs, inputs_u8 = case.inputs(rng), case.bytes(rng)
    fast, fast_u8 = (
        ms_deform_attn(*inputs, **case.where),
        ms_deform_attn_u8(*inputs_u8, **case.where),
    )
    library = ctypes.CDLL(str(path))
    monkeypatch.setattr(cpu, "cpu_library", lambda: library)
    assert_close(ms_deform_attn(*inputs, **case.where), fast.astype(np.float64))
    assert_close_in_steps(
        ms_deform_attn_u8(*inputs_u8, **case.where), fast_u8.astype(np.float64), inputs_u8[1]
    )
