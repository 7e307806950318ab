"""What deformable attention on a CPU refuses."""

import numpy as np
import pytest

from irstd.errors import InputError, UsageError
from irstd.runtime.kernels.ms_deform_attn.cpu import ms_deform_attn, ms_deform_attn_u8

LEVEL_HW = (4, 6, 2, 3)
QUERY_HW = (4, 6)
WHERE = {"level_hw": LEVEL_HW, "query_hw": QUERY_HW}


def make_inputs(rng, heads=2, d_head=8, levels=2, points=4, values=30, queries=24):
    logits = (1, queries, heads, levels, points)
    shapes = {"value": (1, values, heads, d_head), "offsets": (*logits, 2), "logits": logits}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def make_bytes(rng):
    return make_inputs(rng) | {
        "value": rng.integers(0, 256, (1, 30, 2, 8), np.uint8),
        "scale": np.ones(2, np.float32),
        "zero": np.full(2, 128, np.float32),
    }


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["value", "offsets", "logits", "reference_points"])
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_inputs_that_are_no_numbers_are_refused(name, number, place, rng):
    inputs = make_inputs(rng) | {"reference_points": np.full((1, 24, 2), 0.5, np.float32)}
    flat = inputs[name].reshape(-1)
    flat[{"first": 0, "middle": flat.size // 2, "last": -1}[place]] = number
    with pytest.raises(InputError, match="NaN or infinity"):
        ms_deform_attn(**inputs, level_hw=LEVEL_HW)


@pytest.mark.parametrize("name", ["offsets", "logits"])
def test_inputs_beside_bytes_that_are_no_numbers_are_refused(name, rng):
    inputs = make_bytes(rng)
    inputs[name].reshape(-1)[-1] = np.nan
    with pytest.raises(InputError, match="NaN or infinity"):
        ms_deform_attn_u8(**inputs, **WHERE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_head": 4}, r"got d_head 4; wanted one of \(1, 8, 16, 32\)"),
        ({"d_head": 64}, "got d_head 64"),
        ({"values": 31}, "got 31 positions; wanted 30, the pixels of levels"),
        ({"points": 9}, "got 9 points; wanted at most 8"),
        ({"levels": 3}, r"logits: got \(1, 24, 2, 3, 4\) float32; wanted \(1, any, 2, 2, any\)"),
        ({"queries": 23}, r"query_hw: got \(4, 6\) for 23 queries"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(changes, message, rng):
    with pytest.raises(InputError, match=message):
        ms_deform_attn(**make_inputs(rng, **changes), **WHERE)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"level_hw": (4, 6, 2), "query_hw": QUERY_HW}, "level_hw: got 3 numbers"),
        ({"level_hw": (1, 6) * 5, "query_hw": QUERY_HW}, "level_hw: got 10 numbers"),
        ({"level_hw": (), "query_hw": QUERY_HW}, "level_hw: got 0 numbers"),
        ({"level_hw": (0, 6, 5, 6), "query_hw": QUERY_HW}, "wanted positive whole numbers"),
        ({"level_hw": (4.0, 6.0, 2, 3), "query_hw": QUERY_HW}, "wanted positive whole numbers"),
        ({"level_hw": LEVEL_HW}, r"query_hw: got \(\) for 24 queries; wanted H, W"),
        ({"level_hw": LEVEL_HW, "query_hw": (24,)}, r"query_hw: got \(24,\)"),
        ({"level_hw": LEVEL_HW, "query_hw": (-4, -6)}, r"query_hw: got \(-4, -6\)"),
    ],
)
def test_levels_and_grids_that_do_not_fit_are_refused(where, message, rng):
    with pytest.raises(InputError, match=message):
        ms_deform_attn(**make_inputs(rng), **where)


def test_a_grid_beside_reference_points_is_refused(rng):
    references = np.zeros((1, 24, 2), np.float32)
    with pytest.raises(InputError, match="and reference points; wanted one of them"):
        ms_deform_attn(**make_inputs(rng), reference_points=references, **WHERE)


@pytest.mark.parametrize("name", ["value", "offsets", "logits"])
def test_arrays_of_another_kind_are_refused(name, rng):
    inputs = make_inputs(rng)
    for wrong in (inputs[name].astype(np.float64), inputs[name][..., ::-1], inputs[name].tolist()):
        with pytest.raises(InputError, match=name):
            ms_deform_attn(**inputs | {name: wrong}, **WHERE)


def test_maps_without_pixels_are_refused(rng):
    with pytest.raises(InputError, match="value"):
        ms_deform_attn(**make_inputs(rng, values=0), **WHERE)


@pytest.mark.parametrize(
    ("name", "numbers", "message"),
    [
        ("scale", [0, 1], "scale: got .* wanted finite numbers above 0"),
        ("scale", [np.nan, 1], "scale: got"),
        ("zero", [-1, 0], "zero: got .* wanted whole numbers from 0 to 255"),
        ("zero", [0, 256], "zero: got"),
        ("zero", [0.5, 0], "zero: got"),
        ("zero", [np.nan, 0], "zero: got"),
        ("zero", [0], r"zero: got \(1,\) float32; wanted \(2\)"),
    ],
)
def test_scales_out_of_range_are_refused(name, numbers, message, rng):
    with pytest.raises(InputError, match=message):
        ms_deform_attn_u8(**make_bytes(rng) | {name: np.array(numbers, np.float32)}, **WHERE)


def test_results_that_overlap_an_input_are_refused(rng):
    inputs = make_inputs(rng)
    out = inputs["offsets"].reshape(-1)[: 24 * 16].reshape(1, 24, 16)
    with pytest.raises(InputError, match="out: shares memory"):
        ms_deform_attn(**inputs, **WHERE, out=out)


@pytest.mark.parametrize("threads", [0, -1, 1.5])
def test_no_threads_are_refused(threads, rng):
    with pytest.raises(UsageError, match="threads"):
        ms_deform_attn(**make_inputs(rng), **WHERE, threads=threads)
