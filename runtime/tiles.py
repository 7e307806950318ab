"""Covering a frame with tiles of the engine's size, and taking each pixel from the best one."""

import dataclasses
import itertools

OVERLAP_PX = 32


@dataclasses.dataclass(frozen=True)
class Tile:
    """One tile of a frame.

    Attributes:
        frame: Rows and columns of the frame that the tile reads.
        keep_frame: The part of the frame whose result comes from this tile.
        keep_tile: The same part in the tile's own pixels.
    """

    frame: tuple[slice, slice]
    keep_frame: tuple[slice, slice]
    keep_tile: tuple[slice, slice]


def plan_tiles(frame: tuple[int, int], tile: tuple[int, int]) -> tuple[Tile, ...]:
    """Cover a frame with tiles, in raster order.

    A side that fits into the tile needs one tile, which reads from the frame's first pixel. On a
    longer side neighbours overlap by 32 px (half a tile where tiles are smaller than 64 px), and
    the last tile ends with the frame, so it overlaps more. Every pixel belongs to the tile whose
    edge is farthest from it.

    Args:
        frame: Height and width, px.
        tile: Height and width of the engine's input, px.
    """
    return tuple(
        Tile((y.read, x.read), (y.keep, x.keep), (y.keep_tile, x.keep_tile))
        for y in _spans(frame[0], tile[0])
        for x in _spans(frame[1], tile[1])
    )


@dataclasses.dataclass(frozen=True)
class _Span:
    read: slice
    keep: slice
    keep_tile: slice


def _spans(length: int, tile: int) -> list[_Span]:
    if length <= tile:
        whole = slice(0, length)
        return [_Span(whole, whole, whole)]
    stride = tile - min(OVERLAP_PX, tile // 2)
    starts = [*range(0, length - tile, stride), length - tile]
    # Farthest edge means nearest centre, and along one side the border between two centres is
    # halfway. In two dimensions both sides decide on their own, because tiles form a grid.
    cuts = [(a + b + tile) // 2 for a, b in itertools.pairwise(starts)]
    return [
        _Span(slice(start, start + tile), slice(low, high), slice(low - start, high - start))
        for start, low, high in zip(starts, [0, *cuts], [*cuts, length], strict=True)
    ]
