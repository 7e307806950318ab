import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from irstd.components import Components, label_components

EIGHT = np.ones((3, 3), int)


def check_against_scipy(mask: NDArray[np.bool_]) -> None:
    found = label_components(mask)
    labels, count = ndimage.label(mask, EIGHT)
    # scipy numbers components in raster order of their first pixel: ours must come in that order.
    assert len(found) == count
    for number, label in enumerate(found.order):
        own = labels == number + 1
        assert np.array_equal(found.labels == label, own)
        pixels = np.argwhere(own)
        assert found.area_px[number] == len(pixels)
        assert found.first_px[number] == np.flatnonzero(own)[0]
        assert np.array_equal(found.centroid_yx[number], pixels.sum(axis=0) / len(pixels))
        (y0, x0), (y1, x1) = pixels.min(axis=0), pixels.max(axis=0) + 1
        assert found.box_xyxy[number].tolist() == [x0, y0, x1, y1]
    assert np.array_equal(found.labels > 0, mask)


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)))
@settings(max_examples=150)
def test_small_maps_agree_with_scipy(mask: NDArray[np.bool_]) -> None:
    check_against_scipy(mask)


@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.6))
@settings(max_examples=10)
def test_large_maps_agree_with_scipy(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    check_against_scipy(rng.random((rng.integers(30, 70), rng.integers(30, 70))) < share)


def test_order_is_that_of_the_first_pixel_where_opencv_scans_blocks() -> None:
    mask = np.zeros((4, 6), np.bool_)
    mask[1, 0] = mask[0, 4] = mask[3, 2] = True
    found = label_components(mask)
    assert found.first_px.tolist() == [4, 6, 20]
    assert found.centroid_yx.tolist() == [[0, 4], [1, 0], [3, 2]]


def test_diagonal_neighbours_are_one_component() -> None:
    found = label_components(np.eye(5, dtype=np.bool_))
    assert (found.area_px.tolist(), found.box_xyxy.tolist()) == ([5], [[0, 0, 5, 5]])
    assert found.centroid_yx.tolist() == [[2, 2]]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (16, 16)])
def test_an_empty_map_has_no_components_and_well_shaped_arrays(shape: tuple[int, int]) -> None:
    found = label_components(np.zeros(shape, np.bool_))
    assert len(found) == 0
    assert found.labels.shape == shape
    assert found.centroid_yx.shape == (0, 2)
    assert found.box_xyxy.shape == (0, 4)
    assert found.area_px.shape == found.order.shape == found.first_px.shape == (0,)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (16, 16)])
def test_a_full_map_is_one_component(shape: tuple[int, int]) -> None:
    found = label_components(np.ones(shape, np.bool_))
    assert found.area_px.tolist() == [shape[0] * shape[1]]
    assert found.box_xyxy.tolist() == [[0, 0, shape[1], shape[0]]]


def equal(a: Components, b: Components) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in vars(a))


def test_any_memory_layout_and_any_nonzero_byte_is_foreground(rng: np.random.Generator) -> None:
    mask = rng.random((20, 31)) < 0.3
    wanted = label_components(mask)
    assert equal(label_components(np.asfortranarray(mask)), wanted)
    wide = np.zeros((20, 62), np.bool_)
    wide[:, ::2] = mask
    assert equal(label_components(wide[:, ::2]), wanted)
    assert equal(label_components(mask.astype(np.uint8) * np.uint8(200)), wanted)
