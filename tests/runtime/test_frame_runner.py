import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irstd.errors import BuildError, InputError
from irstd.runtime.frame_runner import FrameRunner
from irstd.runtime.postprocess import detect
from irstd.runtime.sessions.fake_session import FakeSession
from irstd.types import Fit, InputSpec


def spec_of(height, width, **changes):
    values = {"scale": (0.02,), "offset": (-2.0,), "pad_level": (100.0,)}
    return InputSpec(height=height, width=width, **{**values, **changes})


def local_runner(spec):
    """An engine in which every pixel depends on itself alone."""
    return FrameRunner(FakeSession(spec.shape), spec)


def random_frame(shape, seed=0, bit_depth=8):
    levels = np.random.default_rng(seed).integers(0, 1 << bit_depth, shape)
    return levels.astype(np.uint8 if bit_depth == 8 else np.uint16)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 150), width=st.integers(1, 150), seed=st.integers(0, 99))
def test_padded_and_tiled_logits_of_a_local_engine_are_those_of_the_untiled_frame(
    height, width, seed
):
    frame = random_frame((height, width), seed)
    whole = local_runner(spec_of(150, 150)).logits(frame)
    pieces = local_runner(spec_of(48, 64)).logits(frame)
    np.testing.assert_array_equal(pieces, whole)
    np.testing.assert_allclose(pieces, frame * 0.02 - 2, atol=1e-5)


def box_filter(reach):
    def run(x):
        padded = np.pad(x[0, 0], reach)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1,) * 2)
        return windows.mean(axis=(2, 3), dtype=np.float32)[None, None]

    return run


def test_tile_seams_do_not_show_for_an_engine_that_sees_16_px_around_each_pixel():
    frame = random_frame((130, 170))
    small, large = spec_of(64, 80), spec_of(130, 170)
    tiled = FrameRunner(FakeSession(small.shape, box_filter(16)), small).logits(frame)
    whole = FrameRunner(FakeSession(large.shape, box_filter(16)), large).logits(frame)
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


@pytest.mark.parametrize("bit_depth", [8, 14, 16])
@pytest.mark.parametrize("shape", [(1, 1), (9, 13), (32, 32), (33, 31), (70, 101)])
@pytest.mark.parametrize("fit", [Fit.PAD, Fit.RESIZE])
def test_logits_are_float32_in_the_frames_own_pixels(bit_depth, shape, fit):
    spec = spec_of(32, 32, bit_depth=bit_depth, fit=fit)
    logits = local_runner(spec).logits(random_frame(shape, bit_depth=bit_depth))
    assert logits.shape == shape
    assert logits.dtype == np.float32


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (32, 40), (33, 41), (100, 130)])
def test_one_bright_pixel_is_found_at_each_corner(shape):
    runner = local_runner(spec_of(32, 40))
    height, width = shape
    for y in {0, height - 1}:
        for x in {0, width - 1}:
            frame = np.zeros(shape, np.uint8)
            frame[y, x] = 255
            found = detect(runner.logits(frame), 0.5)
            np.testing.assert_array_equal(found.centroid_yx, [[y, x]])
            np.testing.assert_array_equal(found.box_xyxy, [[x - 0.5, y - 0.5, x + 0.5, y + 0.5]])


def test_resized_frames_are_scored_where_they_are_bright():
    spec = spec_of(32, 32, fit=Fit.RESIZE)
    for shape in [(64, 96), (20, 12)]:
        frame = np.zeros(shape, np.uint8)
        top, left = shape[0] // 2, shape[1] // 4
        frame[top : top + 4, left : left + 4] = 255
        found = detect(local_runner(spec).logits(frame), 0.5)
        np.testing.assert_allclose(found.centroid_yx, [[top + 1.5, left + 1.5]], atol=0.3)


def test_three_channels_are_fed_alike():
    spec = spec_of(16, 16, scale=(0.02,) * 3, offset=(-2.0,) * 3, pad_level=(100.0,) * 3)
    frame = random_frame((40, 9))
    expected = local_runner(spec_of(16, 16)).logits(frame)
    np.testing.assert_allclose(local_runner(spec).logits(frame), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 8), (32, 32), (50, 60)])
def test_logits_are_the_callers_own_unless_reuse_is_asked_for(shape):
    runner = local_runner(spec_of(32, 32))
    first = runner.logits(np.zeros(shape, np.uint8))
    runner.logits(np.full(shape, 255, np.uint8))
    np.testing.assert_allclose(first, -2)
    reused = runner.logits(np.zeros(shape, np.uint8), reuse=True)
    np.testing.assert_allclose(reused, -2)
    runner.logits(np.full(shape, 255, np.uint8))
    np.testing.assert_allclose(reused, 3.1, rtol=1e-5)


def test_frames_of_changing_size_do_not_disturb_each_other():
    runner = local_runner(spec_of(32, 40))
    for number, shape in enumerate([(32, 40), (3, 5), (90, 41), (10, 100), (3, 5), (32, 40)] * 3):
        frame = random_frame(shape, seed=number)
        np.testing.assert_allclose(runner.logits(frame), frame * 0.02 - 2, atol=1e-5)


def test_engine_time_is_the_sum_over_tiles():
    calls = []

    def run(x):
        calls.append(x.shape)
        return x

    runner = FrameRunner(FakeSession((1, 1, 32, 32), run), spec_of(32, 32))
    assert len(calls) == 1, "construction runs the engine once"
    runner.logits(np.zeros((32, 48), np.uint8))
    assert len(calls) == 3
    assert runner.infer_s > 0


def test_a_refused_frame_leaves_the_runner_usable():
    runner = local_runner(spec_of(32, 32))
    with pytest.raises(InputError):
        runner.logits(np.full((40, 40), np.nan, np.float32))
    assert runner.logits(np.zeros((40, 40), np.uint8)).shape == (40, 40)


def test_an_engine_of_another_size_is_refused():
    with pytest.raises(BuildError, match=r"\(1, 1, 16, 16\); wanted \(1, 1, 32, 32\)"):
        FrameRunner(FakeSession((1, 1, 16, 16)), spec_of(32, 32))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x[:, :, ::2, ::2],
        lambda x: np.concatenate([x, x], axis=1),
        lambda x: x[0],
        lambda x: x.astype(np.float64),
        lambda x: x.mean(axis=(2, 3)),
    ],
)
def test_an_engine_whose_output_is_no_mask_is_refused(wrong):
    with pytest.raises(BuildError, match="wanted logits"):
        FrameRunner(FakeSession((1, 1, 32, 32), wrong), spec_of(32, 32))
