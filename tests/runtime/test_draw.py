import numpy as np
import pytest

from irstd.runtime.draw import annotate
from irstd.runtime.postprocess import detect
from irstd.types import Detections


def detections_at(shape, *boxes):
    logits = np.full(shape, -9, np.float32)
    for y, x, size in boxes:
        logits[y : y + size, x : x + size] = 3
    return detect(logits, 0.5)


@pytest.mark.parametrize(
    ("shape", "zoom"),
    [((256, 256), 3), ((512, 640), 1), ((480, 500), 2), ((20, 30), 4), ((9, 2000), 1)],
)
def test_small_frames_are_enlarged_by_a_whole_factor(shape, zoom):
    picture = annotate(np.zeros(shape, np.uint8), Detections.empty())
    assert picture.shape == (shape[0] * zoom, shape[1] * zoom, 3)
    assert picture.dtype == np.uint8


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [(np.uint8, 90, 110), (np.uint16, 8000, 8300), (np.float32, 10.0, 13.0)],
)
def test_contrast_is_stretched_to_8_bits(dtype, low, high):
    frame = np.linspace(low, high, 100 * 100).reshape(100, 100).astype(dtype)
    picture = annotate(frame, Detections.empty())
    assert picture.min() == 0
    assert picture.max() == 255


def test_a_few_hot_pixels_do_not_decide_the_contrast():
    frame = np.linspace(0, 50, 256 * 256).reshape(256, 256).astype(np.uint8)
    frame[3, 3:6] = 255
    assert np.median(annotate(frame, Detections.empty())) > 100


def test_a_flat_frame_does_not_divide_by_zero():
    assert annotate(np.full((20, 20), 7, np.uint8), Detections.empty()).shape == (80, 80, 3)


@pytest.mark.parametrize("corner", [(60, 70), (0, 0), (0, 126), (126, 0), (126, 126)])
def test_the_bracket_leaves_the_target_visible(corner):
    y, x = corner
    frame = np.zeros((128, 128), np.uint8)
    frame[y : y + 2, x : x + 2] = 255
    plain = annotate(frame, Detections.empty())
    drawn = annotate(frame, detections_at(frame.shape, (y, x, 2)))
    zoom = drawn.shape[0] // 128
    target = slice(y * zoom, (y + 2) * zoom), slice(x * zoom, (x + 2) * zoom)
    np.testing.assert_array_equal(drawn[target], plain[target])
    coloured = drawn[..., 0] != drawn[..., 2]
    rows, columns = np.nonzero(coloured)
    assert len(rows) > 20, "nothing was drawn"
    assert abs(rows.mean() - y * zoom) < 20 * zoom
    assert abs(columns.mean() - x * zoom) < 30 * zoom


def test_the_frame_is_not_drawn_into():
    frame = np.zeros((800, 800), np.uint8)
    annotate(frame, detections_at(frame.shape, (400, 400, 3)))
    assert not frame.any()
