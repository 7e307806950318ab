"""Checks that every session makes of the graph it loaded."""

from collections.abc import Sequence

from irstd.errors import BuildError


def image_shape(inputs: Sequence[Sequence[object]]) -> tuple[int, int, int, int]:
    """Return the (1, C, H, W) of a graph's one input.

    Args:
        inputs: The shape of each input; a dimension that is not an int is symbolic.

    Raises:
        BuildError: Not one input, not four static dimensions, or a batch other than 1.
    """
    if len(inputs) != 1:
        raise BuildError(f"the graph has {len(inputs)} inputs; wanted one image")
    shape = inputs[0]
    sizes = [size for size in shape if isinstance(size, int)]
    if len(shape) != 4 or len(sizes) != 4 or sizes[0] != 1:
        got = ", ".join(map(str, shape))
        raise BuildError(f"the graph's input is ({got}); wanted a static (1, C, H, W)")
    return sizes[0], sizes[1], sizes[2], sizes[3]
