"""Deformable attention in CUDA: the kernels run in the host harness against the definition."""

import dataclasses

import numpy as np
import pytest

from irstd.errors import InputError
from irstd.runtime.kernels.ms_deform_attn import cuda, reference
from irstd.runtime.kernels.ms_deform_attn.shapes import Shapes

# Largest difference from the definition, relative to its largest value. float32: a few roundings.
# Half: 11 bits of every product, and the values of a level are summed in half. u8: the result is
# half; weights have 16 bits, and the zero point does not share their rounding: besides, a part of
# the largest scale.
TOLERANCE = {"f32": 1e-5, "f16": 2e-3, "u8": 1e-3}
PART_OF_SCALE = 0.05
NUMBERS = tuple(TOLERANCE)


@dataclasses.dataclass(frozen=True)
class Case:
    """Shapes of one call and what is in its arrays."""

    images: int = 1
    heads: int = 8
    d_head: int = 32
    points: int = 4
    level_hw: tuple[int, ...] = (6, 8, 3, 4, 2, 2)
    query_hw: tuple[int, int] = (2, 3)
    has_reference_points: bool = False
    offset_px: float = 2.0
    logit: float = 1.0

    @property
    def levels(self) -> int:
        """How many there are."""
        return len(self.level_hw) // 2


def make_arrays(rng, case, number):
    """Return value, offsets, logits, and reference points, scale and zero or None for them."""
    queries = case.query_hw[0] * case.query_hw[1]
    positions = sum(h * w for h, w in zip(case.level_hw[::2], case.level_hw[1::2], strict=True))
    shape = (case.images, queries, case.heads, case.levels, case.points)
    dtype = np.float32 if number == "f32" else np.float16
    offsets = (case.offset_px * rng.standard_normal((*shape, 2))).astype(dtype)
    logits = (case.logit * rng.standard_normal(shape)).astype(dtype)
    points = (
        rng.random((case.images, queries, 2), np.float32) if case.has_reference_points else None
    )
    value_shape = (case.images, positions, case.heads, case.d_head)
    if number != "u8":
        return rng.standard_normal(value_shape).astype(dtype), offsets, logits, points, None, None
    scale = rng.uniform(0.01, 0.1, case.heads).astype(np.float32)
    zero = rng.integers(0, 256, case.heads).astype(np.float32)
    return rng.integers(0, 256, value_shape, np.uint8), offsets, logits, points, scale, zero


def keywords(case):
    """Return the attributes of the call."""
    return {
        "level_hw": case.level_hw,
        "query_hw": () if case.has_reference_points else case.query_hw,
    }


def run(device, case, value, offsets, logits, points, scale, zero):
    """Return what the kernels compute."""
    if scale is None:
        return cuda.ms_deform_attn(device, value, offsets, logits, points, **keywords(case))
    return cuda.ms_deform_attn_u8(
        device, value, scale, zero, offsets, logits, points, **keywords(case)
    )


def define(case, value, offsets, logits, points, scale, zero):
    """Return what the definition says."""
    if scale is not None:
        value = reference.dequantize(value, scale, zero)
    return reference.ms_deform_attn(value, offsets, logits, points, **keywords(case))


def assert_agrees(device, case, number, arrays):
    result, wanted = run(device, case, *arrays), define(case, *arrays)
    assert result.dtype == arrays[1].dtype
    assert result.shape == wanted.shape
    scale = arrays[4]
    allowed = TOLERANCE[number] * np.abs(wanted).max()
    allowed += 0 if scale is None else PART_OF_SCALE * scale.max()
    assert np.abs(result.astype(np.float64) - wanted).max() <= allowed


SWEEP = [
    Case(),
    Case(images=2),
    *(Case(heads=heads) for heads in (1, 3)),
    *(Case(d_head=d_head) for d_head in (1, 8, 16)),
    Case(d_head=1, images=2, heads=3),
    *(Case(points=points) for points in (1, 3, 8)),
    Case(d_head=1, points=5),
    Case(level_hw=(6, 8)),
    Case(level_hw=(6, 8, 3, 4)),
    Case(level_hw=(6, 8, 3, 4, 2, 2, 1, 1)),
    Case(level_hw=(6, 8, 3, 4, 2, 2, 1, 1), d_head=16),
    Case(level_hw=(6, 8, 3, 4), d_head=1),
    Case(level_hw=(6, 8, 3, 4), d_head=8),
    Case(level_hw=(1, 1, 1, 1)),
    Case(level_hw=(7, 5, 5, 3, 1, 9)),
    Case(query_hw=(1, 1)),
    Case(query_hw=(5, 7)),
    Case(has_reference_points=True),
    Case(has_reference_points=True, d_head=1, images=2),
    Case(offset_px=30.0),
    Case(offset_px=60000.0 / 6),
    Case(logit=200.0),
]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("case", SWEEP, ids=str)
def test_kernels_compute_what_the_definition_says(host_device, rng, case, number):
    assert_agrees(host_device(), case, number, make_arrays(rng, case, number))


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("d_head", [1, 32])
@pytest.mark.parametrize("step_px", [0.5, 1.0])
def test_pixel_centres_and_borders(host_device, rng, number, d_head, step_px):
    """Whole and half steps: on centres, between them, and on the edge where the weight is zero."""
    case = Case(d_head=d_head, level_hw=(3, 4, 3, 4), query_hw=(3, 4))
    value, offsets, *rest = make_arrays(rng, case, number)
    offsets = (step_px * rng.integers(-10, 11, offsets.shape)).astype(offsets.dtype)
    assert_agrees(host_device(), case, number, (value, offsets, *rest))


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("d_head", [1, 32])
@pytest.mark.parametrize("points", [4, 5])
def test_points_far_outside_add_nothing(host_device, rng, number, d_head, points):
    case = Case(d_head=d_head, points=points)
    value, offsets, *rest = make_arrays(rng, case, number)
    offsets = np.where(rng.random(offsets.shape) < 0.5, -60000.0, 60000.0).astype(offsets.dtype)
    result = run(host_device(), case, value, offsets, *rest)
    most = 0 if number != "u8" else PART_OF_SCALE * rest[2].max()
    assert np.abs(result).max() <= most


@pytest.mark.parametrize("number", NUMBERS)
def test_a_constant_map_stays_constant_inside(host_device, rng, number):
    """Weights add up to one."""
    case = Case(level_hw=(9, 9, 9, 9, 9, 9), query_hw=(3, 3), offset_px=0.5)
    value, offsets, logits, points, scale, zero = make_arrays(rng, case, number)
    value[:] = 200
    if zero is not None:
        zero[:] = 0
    centre = run(host_device(), case, value, offsets, logits, points, scale, zero)[0, 4]
    wanted = 200 * (np.ones(case.heads) if scale is None else scale)
    np.testing.assert_allclose(centre.reshape(8, 32), np.tile(wanted[:, None], 32), rtol=2e-3)


def test_half_offsets_are_added_in_float32(host_device, rng):
    """At 400 px half has steps of a quarter of a pixel."""
    case = Case(heads=1, d_head=8, level_hw=(1, 500, 1, 500), query_hw=(1, 500))
    value, offsets, *rest = make_arrays(rng, case, "f16")
    value[:] = (np.arange(1000) % 500 % 8).reshape(1, 1000, 1, 1)
    offsets[..., 0], offsets[..., 1] = 0.375, 0
    result = run(host_device(), case, value, offsets, *rest)[0, 400:496].reshape(-1, 8, 8)
    wanted = np.arange(7) + 0.375  # the saw's last tooth falls to the next first
    np.testing.assert_allclose(result[:, :7, 0], np.tile(wanted, (12, 1)), atol=7 * 2e-3)


def test_no_race(host_device, rng):
    case = Case()
    assert_agrees(host_device("thread"), case, "f16", make_arrays(rng, case, "f16"))


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("d_head", [1, 32])
def test_nan_and_infinite_offsets_stay_inside_the_arrays(host_device, rng, number, d_head):
    """On arrays of the device nothing is checked: the sanitizer watches what is read."""
    case = Case(d_head=d_head)
    value, offsets, logits, _, scale, zero = make_arrays(rng, case, number)
    offsets.flat[::5], offsets.flat[1::7] = np.nan, np.inf
    offsets.flat[2::7] = -np.inf
    device = host_device()
    kind = cuda.Number[number.upper()]
    shapes = Shapes.of(value, offsets, logits, None, case.level_hw, case.query_hw, kind.query_dtype)
    attend = cuda.MsDeformAttn(device, shapes, kind, has_reference_points=False)
    out = device.empty(shapes.out, kind.query_dtype)
    of_u8 = {} if scale is None else {"scale": device.array(scale), "zero": device.array(zero)}
    attend(*map(device.array, (value, offsets, logits)), out, **of_u8)
    assert np.isfinite(out.numpy()).all()  # NaN goes to the border


@pytest.mark.parametrize("name", ["value", "offsets", "logits", "reference_points"])
def test_nan_is_refused(host_device, rng, name):
    case = Case(has_reference_points=True)
    arrays = dict(
        zip(("value", "offsets", "logits", "reference_points"), make_arrays(rng, case, "f32")[:4],
            strict=True)
    )  # fmt: skip
    arrays[name].flat[3] = np.nan
    with pytest.raises(InputError, match=f"{name}: holds NaN"):
        cuda.ms_deform_attn(host_device(), **arrays, level_hw=case.level_hw)


def test_queries_of_another_dtype_than_the_values_are_refused(host_device, rng):
    case = Case()
    value, offsets, logits, *_ = make_arrays(rng, case, "f16")
    with pytest.raises(InputError, match="float16"):
        cuda.ms_deform_attn(host_device(), value.astype(np.float32), offsets, logits,
                            **keywords(case))  # fmt: skip


def test_too_many_heads_are_refused(host_device, rng):
    case = Case(heads=65, query_hw=(1, 1))
    with pytest.raises(InputError, match="too many heads"):
        run(host_device(), case, *make_arrays(rng, case, "f32"))


def test_misaligned_arrays_of_the_device_are_refused(host_device, rng):
    case = Case()
    device = host_device()
    value, offsets, logits, *_ = make_arrays(rng, case, "f32")
    shapes = Shapes.of(value, offsets, logits, None, case.level_hw, case.query_hw)
    attend = cuda.MsDeformAttn(device, shapes, cuda.Number.F32, has_reference_points=False)

    class Shifted:
        def __init__(self, array):
            interface = array.__cuda_array_interface__
            self.__cuda_array_interface__ = {**interface, "data": (interface["data"][0] + 4, False)}

    on_device = [device.array(array) for array in (value, offsets, logits)]
    with pytest.raises(InputError, match="offsets: starts 4 bytes past"):
        attend(on_device[0], Shifted(on_device[1]), *on_device[2:],
               device.empty(shapes.out, np.float32))  # fmt: skip


@pytest.mark.gpu
@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("case", SWEEP, ids=str)
def test_a_gpu_computes_what_the_definition_says(rng, case, number):
    from irstd.runtime.kernels.cuda.driver import open_device

    with open_device() as device:
        assert_agrees(device, case, number, make_arrays(rng, case, number))
