"""What the arrays of one call of deformable attention must look like together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from irstd.errors import InputError
from irstd.runtime.kernels.arrays import check_array

D_HEADS = (1, 8, 16, 32)
MAX_LEVELS = 4
MAX_POINTS = 8
MOST_OF_LEVEL, MOST_OF_HEAD = 2**24, 2**28  # ms_deform_attn_cpu.hpp


@dataclass(frozen=True)
class Shapes:
    """N images, Lq queries, M heads of D channels, L levels, P points."""

    images: int
    queries: int
    heads: int
    d_head: int
    levels: int
    points: int
    query_hw: tuple[int, ...]  # empty with reference points
    level_hw: tuple[int, ...]

    @classmethod
    def of(
        cls,
        value: NDArray[np.generic],
        offsets: NDArray[np.floating],
        logits: NDArray[np.floating],
        reference_points: NDArray[np.float32] | None,
        level_hw: Sequence[int],
        query_hw: Sequence[int],
        dtype: type[np.floating] = np.float32,
    ) -> "Shapes":
        """Check arrays against each other; `value` is (N, S, M, D) already.

        `dtype` is that of offsets and logits.

        Raises:
            InputError: They do not fit.
        """
        images, values, heads, d_head = value.shape
        level_hw, query_hw = tuple(level_hw), tuple(query_hw)
        levels = check_levels(level_hw, values, d_head)
        check_array("logits", logits, (images, None, heads, levels, None), dtype)
        queries, points = logits.shape[1], logits.shape[4]
        if points > MAX_POINTS:
            raise InputError(f"logits: got {points} points; wanted at most {MAX_POINTS}")
        check_array("offsets", offsets, (*logits.shape, 2), dtype)
        if reference_points is not None:
            check_array("reference_points", reference_points, (images, queries, 2))
        check_grid(query_hw, queries, reference_points is not None)
        return cls(images, queries, heads, d_head, levels, points, query_hw, level_hw)

    @property
    def out(self) -> tuple[int, int, int]:
        """Shape of the result."""
        return self.images, self.queries, self.heads * self.d_head

    def pack(self) -> NDArray[np.int32]:
        """Return irstd_ms_deform_attn_shape."""
        padding = (0,) * (2 * (MAX_LEVELS - self.levels))
        return np.array(
            [
                self.images, self.queries, self.heads, self.d_head, self.levels, self.points,
                *(self.query_hw or (0, 0)), *self.level_hw, *padding,
            ],
            np.int32,
        )  # fmt: skip


def check_levels(level_hw: tuple[int, ...], values: int, d_head: int) -> int:
    """Return how many levels there are.

    Raises:
        InputError: Not 1 to 4 pairs of positive sizes, not `values` pixels in all, too many of
            them, or a head of so many channels has no kernel.
    """
    wanted = f"H and W of 1 to {MAX_LEVELS} levels"
    if len(level_hw) % 2 or not 2 <= len(level_hw) <= 2 * MAX_LEVELS:
        raise InputError(f"level_hw: got {len(level_hw)} numbers; wanted {wanted}")
    if any(not isinstance(side, int | np.integer) or side < 1 for side in level_hw):
        raise InputError(f"level_hw: got {level_hw}; wanted positive whole numbers, {wanted}")
    sides = [(int(h), int(w)) for h, w in zip(level_hw[::2], level_hw[1::2], strict=True)]
    pixels = sum(h * w for h, w in sides)
    if pixels != values:
        raise InputError(
            f"value: got {values} positions; wanted {pixels}, the pixels of levels {level_hw}"
        )
    if max((h + 2) * (w + 2) for h, w in sides) > MOST_OF_LEVEL:
        raise InputError(f"level_hw: got {level_hw}; wanted at most 2^24 pixels in a level")
    if d_head not in D_HEADS:
        raise InputError(f"value: got d_head {d_head}; wanted one of {D_HEADS}")
    if values * d_head > MOST_OF_HEAD:
        raise InputError(f"value: got {values} x {d_head} numbers a head; wanted at most 2^28")
    return len(sides)


def check_grid(query_hw: tuple[int, ...], queries: int, has_references: bool) -> None:
    """Check that queries have a place: a grid of them or reference points, not both.

    Raises:
        InputError: Neither, both, or a grid of another size.
    """
    if has_references:
        if query_hw:
            raise InputError(f"query_hw: got {query_hw} and reference points; wanted one of them")
        return
    if (
        len(query_hw) != 2
        or any(not isinstance(side, int | np.integer) or side < 1 for side in query_hw)
        or query_hw[0] * query_hw[1] != queries
    ):
        raise InputError(
            f"query_hw: got {query_hw} for {queries} queries; wanted H, W of a grid of that many, "
            "or reference_points"
        )


def check_quantization(scale: NDArray[np.float32], zero: NDArray[np.float32], heads: int) -> None:
    """Check the scale and zero point of each head's 8-bit values.

    Raises:
        InputError: Not (M,) float32, a scale that is not positive, or a zero point that is no whole
            number from 0 to 255.
    """
    check_array("scale", scale, (heads,))
    check_array("zero", zero, (heads,))
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise InputError(f"scale: got {scale}; wanted finite numbers above 0")
    if not ((zero >= 0) & (zero <= 255) & (zero == np.round(zero))).all():
        raise InputError(f"zero: got {zero}; wanted whole numbers from 0 to 255")
