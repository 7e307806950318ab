"""Calibration against activations that are known, and every reason to refuse frames."""

import numpy as np
import pytest

from irstd.calibration.calibrate import calibrate, check_frames, observe_extremes
from irstd.calibration.observers import METHODS
from irstd.errors import CalibrationError, UsageError


class TwoTensors:
    """A session whose tensors are the image and its square."""

    input_shape = (1, 1, 4, 4)
    description = "two tensors"

    def __init__(self):
        self.runs = 0

    def run(self, x):
        self.runs += 1
        return x, x * x

    def close(self):
        pass


NAMES = ("image", "square")


def inputs_of(*values):
    return [np.full((1, 1, 4, 4), value, np.float32) for value in values]


def ramps(count=6):
    rng = np.random.default_rng(0)
    return [rng.normal(0, 1, (1, 1, 4, 4)).astype(np.float32) for _ in range(count)]


def test_minmax_is_the_extremes_over_all_inputs():
    session = TwoTensors()
    table = calibrate(session, NAMES, lambda: inputs_of(-3.0, 1.0, 2.0), "minmax")
    assert (table.method, table.frames) == ("minmax", 3)
    assert list(table.ranges) == ["image", "square"]
    image, square = table.ranges.values()
    assert (image.low, image.high, image.clipped_share) == (-3.0, 2.0, 0.0)
    assert (square.low, square.high) == (1.0, 9.0)
    assert session.runs == 3  # minmax needs no histogram, hence no second pass


@pytest.mark.parametrize("method", [name for name in METHODS if name != "minmax"])
def test_other_methods_record_what_was_seen(method):
    frames = ramps()
    session = TwoTensors()
    table = calibrate(session, NAMES, lambda: frames, method)
    assert session.runs == 2 * len(frames)
    everything = np.stack(frames)
    image = table.ranges["image"]
    assert (image.seen_low, image.seen_high) == (everything.min(), everything.max())
    assert image.seen_low <= image.low < image.high <= image.seen_high
    outside = (everything < image.low) | (everything > image.high)
    assert image.clipped_share == pytest.approx(outside.mean(), abs=0.02)


def test_clipped_share_counts_the_erased_peak():
    background = np.random.default_rng(0).normal(0, 1, (1, 1, 256, 256)).astype(np.float32)
    background[0, 0, 7, 7] = 1000.0

    class One(TwoTensors):
        def run(self, x):
            return (x,)

    found = calibrate(One(), ["a"], lambda: [background], "percentile").ranges["a"]
    assert found.high < 10
    assert found.seen_high == 1000.0
    assert found.clipped_share >= 1 / background.size


@pytest.mark.parametrize("method", METHODS)
def test_constant_activation(method):
    table = calibrate(TwoTensors(), NAMES, lambda: inputs_of(0.0, 0.0), method)
    dead = table.ranges["image"]
    assert (dead.low, dead.high, dead.seen_low, dead.seen_high) == (0.0, 0.0, 0.0, 0.0)
    assert dead.clipped_share == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_activation_that_is_not_finite_is_named(bad):
    frames = inputs_of(1.0, 2.0, 3.0)
    frames[1][0, 0, 2, 3] = bad
    with pytest.raises(CalibrationError, match="image: not finite on calibration input 2"):
        calibrate(TwoTensors(), NAMES, lambda: frames, "minmax")


def test_overflow_in_the_graph_is_not_finite():
    with pytest.raises(CalibrationError, match="square: not finite"), np.errstate(over="ignore"):
        calibrate(TwoTensors(), NAMES, lambda: inputs_of(1e30), "entropy")


def test_no_inputs():
    with pytest.raises(CalibrationError, match="no calibration frames"):
        calibrate(TwoTensors(), NAMES, list, "minmax")


def test_unknown_method_lists_the_known():
    with pytest.raises(UsageError, match=r"'kl'.*minmax, entropy, percentile, mse"):
        calibrate(TwoTensors(), NAMES, ramps, "kl")


def test_extremes_of_reused_buffers():
    """A session may overwrite what it returned before; nothing may be kept by reference."""

    class Reusing(TwoTensors):
        buffer = np.zeros((1, 1, 4, 4), np.float32)

        def run(self, x):
            self.buffer[...] = x
            return (self.buffer,)

    extremes, count = observe_extremes(Reusing(), ["a"], inputs_of(5.0, -1.0))
    assert extremes == {"a": (-1.0, 5.0)}
    assert count == 2


def frame_of(value):
    return np.full((5, 7), value, np.uint8)


def test_usable_frames_pass():
    mixed = frame_of(0)
    mixed[2, 3] = 9
    check_frames([frame_of(0), mixed], [])
    check_frames([mixed], [mixed > 0])


@pytest.mark.parametrize("value", [0, 128, 255])
def test_flat_frames_are_refused(value):
    with pytest.raises(CalibrationError, match="all 3 calibration frames are flat"):
        check_frames([frame_of(value)] * 3, [])


def test_labelled_frames_without_targets_are_refused():
    noise = np.arange(35, dtype=np.uint8).reshape(5, 7)
    with pytest.raises(CalibrationError, match=r"none of the 2 labelled.*holds a target"):
        check_frames([noise, noise], [np.zeros((5, 7), bool)] * 2)


def test_no_frames_are_refused():
    with pytest.raises(CalibrationError, match="no calibration frames"):
        check_frames([], [])
