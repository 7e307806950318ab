"""The spectral split in CUDA: the kernels run in the host harness against the definition."""

import numpy as np
import pytest

from irstd.errors import InputError
from irstd.runtime.kernels.cuda.driver import open_device
from irstd.runtime.kernels.spectral_split import cuda, reference

# Largest difference from the definition, relative to its largest value. float32: the transforms'
# and a few more roundings. Half: spectra, low band and result are rounded to 11 bits.
TOLERANCE = {np.float32: 1e-5, np.float16: 2e-3}
DTYPES = tuple(TOLERANCE)
DEFAULT = (1, 3, 32, 64)
# One axis at a time: images, channels (groups of eight and what is left), sides. Each side begins
# its transform with another radix; from 128 x 256 px on, rows and columns are kernels of their own.
WHOLE = [
    DEFAULT,
    (2, 3, 32, 64),
    *((1, channels, 32, 64) for channels in (1, 9)),
    *((1, 1, height, 32) for height in (32, 64, 128, 256, 512)),
    *((1, 1, 32, width) for width in (32, 128, 256, 512)),
    (1, 1, 128, 128),
]
LARGE = [(1, 2, 128, 256), (1, 1, 256, 128), (1, 1, 64, 512), (1, 1, 512, 64)]


def make_inputs(rng, shape, dtype, scale=1.0, mean=0.5):
    channels = shape[1]
    parameters = (
        reference.HIGHEST_FREQUENCY / (1 + np.exp(-rng.normal(-2, 1, channels))),
        0.2 * rng.standard_normal((2, 2, 7, 7)),
        rng.standard_normal(2),
        rng.standard_normal((2, channels)),
    )
    x = (scale * (rng.standard_normal(shape) + mean)).astype(dtype)
    return x, *(array.astype(np.float32) for array in parameters)


def assert_agrees(device, inputs):
    result, wanted = cuda.spectral_split(device, *inputs), reference.spectral_split(*inputs)
    assert result.dtype == inputs[0].dtype
    assert result.shape == wanted.shape
    error = np.abs(result.astype(np.float64) - wanted).max()
    assert error <= TOLERANCE[result.dtype.type] * np.abs(wanted).max()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [*WHOLE, *LARGE], ids=str)
def test_kernels_compute_what_the_definition_says(host_device, rng, shape, dtype):
    assert_agrees(host_device(None), make_inputs(rng, shape, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 2, 32, 32), (1, 1, 64, 512)], ids=str)
def test_nothing_outside_the_arrays_is_touched(host_device, rng, shape, dtype):
    assert_agrees(host_device("address"), make_inputs(rng, shape, dtype))


@pytest.mark.parametrize("shape", [(1, 2, 32, 32), (1, 1, 64, 512)], ids=str)
def test_threads_do_not_race(host_device, rng, shape):
    assert_agrees(host_device("thread"), make_inputs(rng, shape, np.float16))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-2, 10.0])
def test_faint_and_bright_pixels(host_device, rng, dtype, scale):
    with np.errstate(over="ignore"):  # of the definition's exponentials
        assert_agrees(host_device(None), make_inputs(rng, (1, 1, 64, 512), dtype, scale))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_float32_keeps_its_range(host_device, rng, scale):
    """Logits of 1e30 saturate the gates; nothing overflows."""
    with np.errstate(over="ignore"):
        assert_agrees(host_device(None), make_inputs(rng, DEFAULT, np.float32, scale))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 2, 32, 32), (1, 1, 64, 512)], ids=str)
@pytest.mark.parametrize("value", [7.0, cuda.MOST_HALF])
def test_constant_maps_are_all_low_band(host_device, shape, dtype, value):
    """In half too: a spectrum that held the sum of a map would overflow."""
    x = np.full(shape, value, dtype)
    channels = shape[1]
    zeros = np.zeros((2, 2, 7, 7), np.float32), np.zeros(2, np.float32)
    cutoff = np.full(channels, 0.07, np.float32)
    gamma = np.array([[2.0] * channels, [100.0] * channels], np.float32)
    result = cuda.spectral_split(host_device(None), x, cutoff, *zeros, gamma)
    np.testing.assert_allclose(result.astype(np.float64), 2 * value, rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("cutoff", [1e-30, 1e-4, 0.5, 1e30])
def test_any_cutoff(host_device, rng, cutoff):
    """From the mean alone to all of x."""
    x, _, *rest = make_inputs(rng, (1, 1, 32, 32), np.float32)
    assert_agrees(host_device(None), (x, np.full(1, cutoff, np.float32), *rest))


@pytest.mark.parametrize("size_hw", [(16, 64), (64, 48), (1, 1), (1024, 64), (640, 512)])
def test_other_sides_are_refused(host_device, size_hw):
    height, width = size_hw
    with pytest.raises(InputError, match=f"x: got {height} x {width} px; .*run the plain graph"):
        cuda.SpectralSplit(host_device(), (1, 1, height, width), np.float32)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_no_numbers_are_refused(host_device, rng, value):
    x, *rest = make_inputs(rng, DEFAULT, np.float16)
    x[0, 2, 31, 63] = value
    with pytest.raises(InputError, match="x: holds NaN or infinity"):
        cuda.spectral_split(host_device(), x, *rest)


def test_half_that_would_overflow_is_refused(host_device, rng):
    x, *rest = make_inputs(rng, DEFAULT, np.float16)
    x[0, 0, 0, 0] = 16400
    with pytest.raises(InputError, match="x: holds 16400 in float16; wanted at most 16000"):
        cuda.spectral_split(host_device(), x, *rest)


@pytest.mark.parametrize(
    ("position", "array", "said"),
    [
        (0, np.zeros((3, 32, 64), np.float32), r"x: got \(3, 32, 64\)"),
        (0, np.zeros(DEFAULT), "x: got .* float64"),
        (1, np.zeros(3, np.float32), "cutoff: wanted finite numbers above 0"),
        (1, np.full(3, np.nan, np.float32), "cutoff: wanted finite numbers above 0"),
        (2, np.full((2, 2, 7, 7), np.nan, np.float32), "gate_weight: holds NaN"),
        (3, np.full(2, np.nan, np.float32), "gate_bias: holds NaN"),
        (4, np.full((2, 3), np.inf, np.float32), "gamma: holds NaN or infinity"),
        (1, np.ones(4, np.float32), r"cutoff: got \(4,\)"),
        (2, np.zeros((2, 2, 7, 5), np.float32), r"gate_weight: .*wanted \(2, 2, 7, 7\)"),
        (3, np.zeros(2, np.float16), "gate_bias: .*wanted .* float32"),
        (4, np.zeros((3, 2), np.float32), r"gamma: .*wanted \(2, 3\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(host_device, rng, position, array, said):
    inputs = list(make_inputs(rng, DEFAULT, np.float32))
    inputs[position] = array
    with pytest.raises(InputError, match=said):
        cuda.spectral_split(host_device(), *inputs)


def test_arrays_on_the_device(host_device, rng):
    device, inputs = host_device(None), make_inputs(rng, DEFAULT, np.float32)
    split = cuda.SpectralSplit(device, DEFAULT, np.float32)
    on_device, out = [device.array(a) for a in inputs], device.empty(DEFAULT, np.float32)
    split(*[*on_device, out])
    wanted = reference.spectral_split(*inputs)
    assert np.abs(out.numpy() - wanted).max() <= 1e-5 * np.abs(wanted).max()
    with pytest.raises(InputError, match="x: got ndarray; wanted an array on the device"):
        split(*[inputs[0], *on_device[1:], out])


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [*WHOLE, *LARGE, (1, 64, 256, 256), (2, 3, 512, 512)], ids=str)
def test_on_a_gpu(rng, shape, dtype):
    with open_device() as device:
        assert_agrees(device, make_inputs(rng, shape, dtype))
