"""What every engine looks like from above."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Session(Protocol):
    """A graph loaded into an engine, with static shapes and batch 1.

    Attributes:
        input_shape: (1, C, H, W) of the one image input, float32.
        description: The library and how it runs, one line for logs and reports.
    """

    input_shape: tuple[int, int, int, int]
    description: str

    def run(self, x: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Infer once.

        Args:
            x: `input_shape` float32, C-contiguous. Neither kept nor changed beyond the call, but
                passing the same array again is the fast path.

        Returns:
            The outputs in the graph's order. They may be buffers that THE NEXT CALL OVERWRITES:
            copy what must outlive it.
        """
        ...

    def close(self) -> None:
        """Free the engine. Calling it again does nothing."""
        ...
