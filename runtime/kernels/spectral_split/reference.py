"""The definition of the spectral split (models.md 4.5, FAE), numpy float64, no tricks."""

import numpy as np
from numpy.typing import NDArray

BANDS = ("low", "high")
POOLS = ("mean", "max")  # over the channels
KERNEL_PX = 7
HIGHEST_FREQUENCY = float(np.hypot(0.5, 0.5))  # cycles per pixel, along the diagonal


def butterworth(height: int, width: int, cutoff: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the low-pass 1 / (1 + (D / D0)^4), (C, H, W // 2 + 1), of second order.

    Args:
        height: H of the map, pixels.
        width: W of the map, pixels.
        cutoff: (C,), D0 in cycles per pixel, above 0.
    """
    squared = np.fft.fftfreq(height)[:, None] ** 2 + np.fft.rfftfreq(width) ** 2
    d0 = np.asarray(cutoff, np.float64)[:, None, None]
    return np.asarray(1 / (1 + (squared / d0**2) ** 2))


def low_band(x: NDArray[np.floating], cutoff: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the low band of (N, C, H, W); the high band is what it lacks of x."""
    x = np.asarray(x, np.float64)
    height, width = x.shape[2:]
    spectrum = np.fft.rfft2(x) * butterworth(height, width, cutoff)
    return np.asarray(np.fft.irfft2(spectrum, s=(height, width)), np.float64)


def spectral_split(
    x: NDArray[np.floating],
    cutoff: NDArray[np.floating],
    gate_weight: NDArray[np.floating],
    gate_bias: NDArray[np.floating],
    gamma: NDArray[np.floating],
) -> NDArray[np.float64]:
    """Return x plus its low and its high band, each weighted by its own gate and gains.

    Args:
        x: (N, C, H, W).
        cutoff: (C,), D0 in cycles per pixel, above 0.
        gate_weight: (2, 2, 7, 7): for each of BANDS the kernel on each of POOLS.
        gate_bias: (2,), one for each of BANDS.
        gamma: (2, C): for each of BANDS the gain of every channel.
    """
    x, gate_weight, gate_bias, gamma = (
        np.asarray(a, np.float64) for a in (x, gate_weight, gate_bias, gamma)
    )
    low = low_band(x, cutoff)
    out = x.copy()
    for band, values in enumerate((low, x - low)):
        pooled = np.stack([values.mean(1), values.max(1)], 1)
        gate = 1 / (1 + np.exp(-(_correlate(pooled, gate_weight[band]) + gate_bias[band])))
        out += gamma[band][:, None, None] * (values * gate[:, None])
    return np.asarray(out, np.float64)


def _correlate(maps: NDArray[np.float64], kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cross-correlate (N, 2, H, W) with (2, 7, 7), zeros around, to (N, H, W)."""
    reach = KERNEL_PX // 2
    padded = np.pad(maps, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (KERNEL_PX, KERNEL_PX), axis=(2, 3))
    return np.asarray(np.einsum("nchwij,cij->nhw", windows, kernel), np.float64)
