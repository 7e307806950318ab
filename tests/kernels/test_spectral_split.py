"""The spectral split on a CPU against its definition, and what it refuses."""

import numpy as np
import pytest

from irstd.errors import InputError, UsageError
from irstd.runtime.kernels.spectral_split import reference
from irstd.runtime.kernels.spectral_split.cpu import spectral_split

DEFAULT = (1, 6, 24, 32)
# One axis at a time: images; channels (groups of four and the rest); rows (every butterfly, each
# kind of last one, primes, the reach of the gate); columns (full strips of 16 px with eight, four
# and two vectors at a time, and other widths).
SHAPES = [
    DEFAULT,
    (3, 6, 24, 32),
    *((1, channels, 24, 32) for channels in (1, 2, 4, 5, 11)),
    *((1, 6, height, 32) for height in (1, 2, 3, 4, 5, 6, 8, 9, 14, 16, 25, 26, 44, 64, 71, 128)),
    *((1, 6, 24, width) for width in (1, 2, 3, 7, 8, 13, 16, 17, 24, 40, 48, 64, 66, 80, 96, 112)),
    *((1, 2, 8, width) for width in (128, 160, 192, 256, 320, 512, 1024)),
    *((1, 2, side, side) for side in (32, 64, 128)),
    (1, 1, 1, 1),
]
RELATIVE = 1e-5  # float32 against float64, of the largest value


def make_inputs(rng, shape, scale=1.0):
    channels = shape[1]
    arrays = (
        scale * (rng.standard_normal(shape) + 0.5),
        reference.HIGHEST_FREQUENCY / (1 + np.exp(-rng.normal(-2, 1, channels))),
        0.2 * rng.standard_normal((2, 2, 7, 7)),
        rng.standard_normal(2),
        rng.standard_normal((2, channels)),
    )
    return tuple(array.astype(np.float32) for array in arrays)


def assert_close(result, wanted):
    assert result.dtype == np.float32
    assert result.shape == wanted.shape
    assert np.abs(result - wanted).max() <= RELATIVE * np.abs(wanted).max()


def low_band_only(x, cutoff):
    """Take the low band out of the kernel: gates of one half, gains of 0 and -2, x - low left."""
    channels = x.shape[1]
    gamma = np.array([[-2] * channels, [0] * channels], np.float32)
    cutoff = np.full(channels, cutoff, np.float32)
    zeros = np.zeros((2, 2, 7, 7), np.float32), np.zeros(2, np.float32)
    return x - spectral_split(x, cutoff, *zeros, gamma)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_computes_what_the_definition_says(shape, rng):
    inputs = make_inputs(rng, shape)
    assert_close(spectral_split(*inputs), reference.spectral_split(*inputs))


@pytest.mark.parametrize("scale", [1e-6, 1e3, 1e30])
def test_faint_and_huge_pixels(scale, rng):
    """Logits of 1e30 saturate the gates; nothing overflows."""
    inputs = make_inputs(rng, DEFAULT, scale)
    with np.errstate(over="ignore"):
        wanted = reference.spectral_split(*inputs)
    assert_close(spectral_split(*inputs), wanted)


@pytest.mark.parametrize("cutoff", [1e-30, 1e-9, 1e-4, 0.01, 0.5, 0.7071, 100, 1e30])
def test_any_cutoff(cutoff, rng):
    """From the mean alone to all of x."""
    x = make_inputs(rng, (1, 2, 48, 64))[0]
    wanted = reference.low_band(x, np.full(2, np.float32(cutoff)))
    assert np.abs(low_band_only(x, cutoff) - wanted).max() <= RELATIVE * np.abs(x).max()


@pytest.mark.parametrize("size_hw", [(32, 32), (15, 21)])
def test_a_constant_map_is_all_low_band(size_hw):
    x = np.full((1, 3, *size_hw), 7, np.float32)
    np.testing.assert_allclose(low_band_only(x, 0.07), x, rtol=1e-6)


def test_the_borders_are_joined():
    """The low band of a bright corner shines at the opposite ones."""
    x = np.zeros((1, 1, 32, 32), np.float32)
    x[..., 0, 0] = 1
    low = low_band_only(x, 0.07)[0, 0]
    assert low[0, 0] == low.max() > 0
    np.testing.assert_allclose(low[1:, 1:], low[:0:-1, :0:-1], atol=1e-6)
    np.testing.assert_allclose(low, low.T, atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2, 3, 64])
def test_threads_share_channels_and_rows(threads, rng):
    inputs = make_inputs(rng, (2, 5, 33, 17))
    np.testing.assert_array_equal(spectral_split(*inputs, threads=threads), spectral_split(*inputs))


def test_it_writes_where_it_is_asked_to(rng):
    inputs = make_inputs(rng, DEFAULT)
    whole = np.full(inputs[0].size + 2, np.float32(3))
    out = whole[1:-1].reshape(DEFAULT)  # 4 bytes off any vector's alignment
    work = np.empty(DEFAULT[1:], np.float32)
    assert spectral_split(*inputs, out=out, work=work) is out
    assert_close(out, reference.spectral_split(*inputs))
    assert whole[0] == whole[-1] == 3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0, 0, 0), (1, 4, 23, 31), (0, 2, 11, 8)])
def test_pixels_that_are_no_numbers_are_refused(value, place, rng):
    inputs = make_inputs(rng, (2, 5, 24, 32))
    inputs[0][place] = value
    with pytest.raises(InputError, match="x, gate_weight, gate_bias or gamma: holds NaN"):
        spectral_split(*inputs)


@pytest.mark.parametrize("index", [2, 3, 4])
def test_weights_that_are_no_numbers_are_refused(index, rng):
    inputs = make_inputs(rng, DEFAULT)
    inputs[index].reshape(-1)[-1] = np.nan
    with pytest.raises(InputError, match="x, gate_weight, gate_bias or gamma: holds NaN"):
        spectral_split(*inputs)


def test_cutoffs_that_pass_nothing_are_refused(rng):
    x, cutoff, *others = make_inputs(rng, DEFAULT)
    for value in (0, -0.1, np.nan, np.inf):
        cutoff[3] = value
        with pytest.raises(InputError, match="cutoff: wanted finite numbers above 0"):
            spectral_split(x, cutoff, *others)


BAD = {
    "no array": (0, lambda x: [[1.0]], "x: got list"),
    "float64": (0, lambda x: x.astype(float), "x: got .* float64; wanted"),
    "three axes": (0, lambda x: x[0], "x: got"),
    "nothing": (0, lambda x: x[:, :, :0], "x: got"),
    "strided": (0, lambda x: x[..., ::2], "numpy.ascontiguousarray"),
    "channels": (1, lambda c: c[:-1], "cutoff: got"),
    "kernel": (2, lambda w: w[..., :6], "gate_weight: got"),
    "bands": (3, lambda b: b[:1], "gate_bias: got"),
    "gains": (4, lambda g: g[:, :-1], "gamma: got"),
}


@pytest.mark.parametrize(("index", "change", "message"), BAD.values(), ids=BAD)
def test_other_arrays_are_refused(index, change, message, rng):
    inputs = list(make_inputs(rng, DEFAULT))
    inputs[index] = change(inputs[index])
    with pytest.raises(InputError, match=message):
        spectral_split(*inputs)


def test_results_that_cannot_be_written_are_refused(rng):
    inputs = make_inputs(rng, DEFAULT)
    with pytest.raises(InputError, match="out: shares memory"):
        spectral_split(*inputs, out=inputs[0])
    out = np.empty(DEFAULT, np.float32)
    with pytest.raises(InputError, match="out: shares memory"):
        spectral_split(*inputs, out=out, work=out[0])
    with pytest.raises(InputError, match="out: got"):
        spectral_split(*inputs, work=np.empty((6, 24, 31), np.float32))


@pytest.mark.parametrize("threads", [0, -1, 2.0, "2", 100_000])
def test_odd_thread_counts_are_refused(threads, rng):
    with pytest.raises(UsageError, match="threads"):
        spectral_split(*make_inputs(rng, DEFAULT), threads=threads)
