"""The definition of the Haar gate (models.md 1.8, FreqAttn), numpy float64, no tricks."""

import numpy as np
from numpy.typing import NDArray

BANDS = ("LH", "HL", "HH", "LL")  # first letter: vertical filter, second: horizontal
KERNEL_PX = 7

# Cross-correlation kernels, rows from top to bottom; L = (1, 1) / sqrt 2, H = (1, -1) / sqrt 2.
FILTERS = 0.5 * np.array(
    [
        [[1, 1], [-1, -1]],
        [[1, -1], [1, -1]],
        [[1, -1], [-1, 1]],
        [[1, 1], [1, 1]],
    ],
    np.float64,
)


def haar_gate(
    x: NDArray[np.floating], weight: NDArray[np.floating], bias: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return x times the sum of the sigmoid gates of its four undecimated Haar bands.

    Args:
        x: (N, C, H, W).
        weight: (4, 2, 7, 7): for each of BANDS the kernel on the channel maximum and on the mean.
        bias: (4,), one for each of BANDS.
    """
    x, weight, bias = (np.asarray(a, np.float64) for a in (x, weight, bias))
    gate = sum(
        1 / (1 + np.exp(-(_correlate(_pool(_filter(x, FILTERS[b])), weight[b]) + bias[b])))
        for b in range(len(BANDS))
    )
    result: NDArray[np.float64] = x * np.asarray(gate)[:, None]
    return result


def _filter(x: NDArray[np.float64], kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Filter every channel, a row of zeros above and a column of zeros to the left."""
    height, width = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 0), (1, 0)))
    total: NDArray[np.float64] = np.sum(
        [
            kernel[row, column] * padded[:, :, row : row + height, column : column + width]
            for row in range(2)
            for column in range(2)
        ],
        axis=0,
    )
    return total


def _pool(band: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (N, 2, H, W): maximum and mean over the channels."""
    return np.stack([band.max(1), band.mean(1)], 1)


def _correlate(maps: NDArray[np.float64], kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cross-correlate (N, 2, H, W) with (2, 7, 7), zeros around, to (N, H, W)."""
    reach = KERNEL_PX // 2
    padded = np.pad(maps, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (KERNEL_PX, KERNEL_PX), axis=(2, 3))
    logits: NDArray[np.float64] = np.einsum("nchwij,cij->nhw", windows, kernel)
    return logits
