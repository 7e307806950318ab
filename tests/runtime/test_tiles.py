import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irstd.runtime.tiles import plan_tiles


def distance_to_edge(length: int, read: slice) -> np.ndarray:
    """Of each pixel of a side to the nearer edge of a tile; negative outside of it."""
    centre = np.arange(length) + 0.5
    return np.minimum(centre - read.start, read.stop - centre)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    tile_height=st.integers(24, 120),
    tile_width=st.integers(24, 120),
)
def test_each_pixel_comes_once_from_the_tile_whose_edge_is_farthest(
    height, width, tile_height, tile_width
):
    tiles = plan_tiles((height, width), (tile_height, tile_width))
    best = np.full((height, width), -np.inf)
    taken = np.full((height, width), np.nan)
    for tile in tiles:
        away = np.minimum(
            distance_to_edge(height, tile.frame[0])[:, None],
            distance_to_edge(width, tile.frame[1])[None, :],
        )
        best = np.maximum(best, away)
        assert np.isnan(taken[tile.keep_frame]).all(), "a pixel is taken twice"
        taken[tile.keep_frame] = away[tile.keep_frame]
    np.testing.assert_array_equal(taken, best)


@pytest.mark.parametrize("length", [1, 99, 100])
def test_a_side_that_fits_needs_one_tile(length):
    (tile,) = plan_tiles((length, length), (100, 100))
    assert tile.frame == (slice(0, length), slice(0, length))


def test_neighbours_overlap_by_32_px_and_the_last_tile_ends_with_the_frame():
    tiles = plan_tiles((100, 300), (100, 100))
    assert [tile.frame[1].start for tile in tiles] == [0, 68, 136, 200]
    # Halfway between the centres: (50 + 118) / 2, (118 + 186) / 2, (186 + 250) / 2.
    assert [tile.keep_frame[1].stop for tile in tiles] == [84, 152, 218, 300]


@settings(max_examples=40, deadline=None)
@given(length=st.integers(1, 400), tile=st.integers(1, 130))
def test_tiles_read_inside_the_frame_and_keep_what_they_read(length, tile):
    for piece in plan_tiles((length, 5), (tile, 8)):
        read, keep, own = piece.frame[0], piece.keep_frame[0], piece.keep_tile[0]
        assert 0 <= read.start < read.stop <= length
        assert read.stop - read.start == min(length, tile)
        assert (own.start, own.stop) == (keep.start - read.start, keep.stop - read.start)
        assert own.start >= 0
        assert own.stop <= tile
