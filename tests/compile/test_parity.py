"""Parity between an engine and its graph: what is measured, and where the lines are."""

import numpy as np
import pytest

from irstd.compile.parity import ROUNDING_FACTOR, TOLERANCES, compare_logits, tolerance_for
from irstd.errors import InputError
from irstd.types import Precision


def maps(*values):
    return [np.float32(value).reshape(2, 2) for value in values]


WANTED = maps([-10, 0, 0, 10], [0, 5, 5, 0])


def off_by(error, worst=None):
    got = [array + np.float32(error) for array in WANTED]
    if worst is not None:
        got[1][1, 0] = WANTED[1][1, 0] + np.float32(worst)
    return got


def test_equal_maps_pass_every_precision():
    for precision in Precision:
        parity = compare_logits(WANTED, WANTED, precision)
        assert parity.passed
        assert (parity.mean_abs_error, parity.max_abs_error, parity.logit_range) == (0, 0, 20)


def test_errors_are_over_all_maps():
    parity = compare_logits(off_by(0.0, worst=-3.0), WANTED, Precision.INT8)
    assert parity.max_abs_error == 3.0
    assert parity.mean_abs_error == pytest.approx(3 / 8)


@pytest.mark.parametrize("precision", Precision)
def test_the_lines_are_shares_of_the_range(precision):
    mean, worst = TOLERANCES[precision].mean * 20, TOLERANCES[precision].worst * 20
    assert compare_logits(off_by(0.9 * mean), WANTED, precision).passed
    assert not compare_logits(off_by(1.1 * mean), WANTED, precision).passed
    # One pixel of eight adds an eighth of its error to the mean; the lines are apart by more.
    one_pixel = compare_logits(off_by(0.0, worst=1.1 * worst), WANTED, precision)
    assert not one_pixel.passed
    assert one_pixel.max_abs_error > worst


def test_flat_logits_do_not_make_the_tolerance_vanish():
    flat = maps([-7, -7, -7, -7])
    assert compare_logits([flat[0] + np.float32(1e-6)], flat, Precision.FP32).passed


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite_never_passes(bad):
    got = off_by(0.0, worst=bad)
    with np.errstate(invalid="ignore"):
        assert not compare_logits(got, WANTED, Precision.INT8).passed


@pytest.mark.parametrize("precision", Precision)
def test_a_graph_near_its_source_is_held_to_the_table(precision):
    assert tolerance_for(precision, WANTED, off_by(1e-6)) == TOLERANCES[precision]


def test_an_int8_graph_that_rounds_much_allows_its_engines_as_much():
    """Its own error is 1 on average and 8 at worst, of a range of 20."""
    found = tolerance_for(Precision.INT8, WANTED, off_by(0.0, worst=8.0))
    assert found.mean == pytest.approx(ROUNDING_FACTOR * 1 / 20)
    assert found.worst == pytest.approx(2 * ROUNDING_FACTOR * 8 / 20)
    assert compare_logits(off_by(0.07 * 20), WANTED, Precision.INT8, found).passed
    assert not compare_logits(off_by(0.08 * 20), WANTED, Precision.INT8, found).passed


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_float_graphs_are_held_to_the_table_whatever_they_compute(precision):
    assert tolerance_for(precision, WANTED, off_by(5.0)) == TOLERANCES[precision]


def test_looser_precisions_are_looser():
    order = [TOLERANCES[p] for p in (Precision.FP32, Precision.FP16, Precision.INT8)]
    assert sorted(t.mean for t in order) == [t.mean for t in order]
    assert sorted(t.worst for t in order) == [t.worst for t in order]
    assert set(TOLERANCES) == set(Precision)


@pytest.mark.parametrize(
    "got", [[], WANTED[:1], [np.zeros((3, 3), np.float32)] * 2, [*WANTED, WANTED[0]]]
)
def test_maps_that_do_not_fit_are_refused(got):
    with pytest.raises(InputError, match="logit maps"):
        compare_logits(got, WANTED, Precision.FP32)


def test_no_maps_are_refused():
    with pytest.raises(InputError, match="0 and 0 logit maps"):
        compare_logits([], [], Precision.FP32)


def test_as_text_and_json_it_says_both_errors_and_what_was_allowed():
    parity = compare_logits(off_by(0.5), WANTED, Precision.INT8)
    assert str(parity) == (
        "mean error 0.5, worst 0.5 on logits that span 20 (allowed 2e-02 and 3e-01 of the span)"
    )
    assert parity.to_dict() == {
        "mean_abs_error": 0.5,
        "max_abs_error": 0.5,
        "logit_range": 20.0,
        "tolerance": {"mean": 0.02, "worst": 0.3},
        "passed": False,
    }
