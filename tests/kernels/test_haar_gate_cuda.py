"""The Haar gate in CUDA: the kernel runs in the host harness against the definition."""

import numpy as np
import pytest

from irstd.errors import InputError
from irstd.runtime.kernels.cuda.driver import open_device
from irstd.runtime.kernels.haar_gate import cuda, reference

# Largest difference from the definition, relative to its largest value. float32: a few roundings.
# Half: sums of four pixels and the result are rounded to 11 bits.
TOLERANCE = {np.float32: 1e-5, np.float16: 2e-3}
DTYPES = tuple(TOLERANCE)
DEFAULT = (1, 8, 12, 64)
# One axis at a time: images, channels (groups of eight and what is left), rows (steps of four, what
# the gates reach, segments that are walked down and up), columns (whole vectors or not, strips).
SHAPES = [
    DEFAULT,
    (2, 8, 12, 64),
    *((1, channels, 12, 64) for channels in (1, 3, 17)),
    *((1, 8, height, 64) for height in (1, 2, 5, 8, 9, 29)),
    *((1, 8, 12, width) for width in (1, 2, 7, 8, 31, 37, 72, 130)),
    (1, 1, 1, 1),
]


def make_inputs(rng, shape, dtype, scale=1.0):
    weight, bias = 0.2 * rng.standard_normal((4, 2, 7, 7)), rng.standard_normal(4)
    x = (scale * rng.standard_normal(shape)).astype(dtype)
    return x, weight.astype(np.float32), bias.astype(np.float32)


def assert_agrees(device, inputs):
    result, wanted = cuda.haar_gate(device, *inputs), reference.haar_gate(*inputs)
    assert result.dtype == inputs[0].dtype
    assert result.shape == wanted.shape
    error = np.abs(result.astype(np.float64) - wanted).max()
    assert error <= TOLERANCE[result.dtype.type] * np.abs(wanted).max()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kernel_computes_what_the_definition_says(host_device, rng, shape, dtype):
    assert_agrees(host_device(), make_inputs(rng, shape, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_do_not_race(host_device, rng, dtype):
    """Two segments, one walked down and one up, on a width with a strip that is not full."""
    assert_agrees(host_device("thread"), make_inputs(rng, (1, 3, 16, 72), dtype))


@pytest.mark.parametrize("multiprocessors", [1, 2, 16, 1000])
def test_segments_by_the_number_of_multiprocessors(host_device, rng, multiprocessors):
    device = host_device(None)
    device.properties = device.properties._replace(multiprocessors=multiprocessors)
    assert_agrees(device, make_inputs(rng, (1, 2, 61, 40), np.float32))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-3, 10.0])
def test_faint_and_bright_pixels(host_device, rng, dtype, scale):
    assert_agrees(host_device(None), make_inputs(rng, DEFAULT, dtype, scale))


def test_brightest_half_is_as_good_as_bands_in_half(host_device, rng, monkeypatch):
    """Logits of hundreds: the last bit of a band is what lies between a gate shut and open."""
    inputs = make_inputs(rng, DEFAULT, np.float16, 100.0)
    wanted = reference.haar_gate(*inputs)
    error = np.abs(cuda.haar_gate(host_device(None), *inputs) - wanted).max()
    exact = reference._filter
    monkeypatch.setattr(reference, "_filter", lambda *a: exact(*a).astype(np.float16).astype(float))
    assert error <= 1.5 * np.abs(reference.haar_gate(*inputs) - wanted).max()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_float32_keeps_its_range(host_device, rng, scale):
    """Logits of 1e30 saturate the gates; nothing overflows."""
    x, weight, bias = make_inputs(rng, DEFAULT, np.float32, scale)
    with np.errstate(over="ignore"):
        assert_agrees(host_device(None), (x, weight, bias))


@pytest.mark.parametrize("dtype", DTYPES)
def test_constant_maps(host_device, dtype):
    x = np.full((1, 3, 20, 40), 7, dtype)
    assert_agrees(
        host_device(None), (x, *make_inputs(np.random.default_rng(1), x.shape, dtype)[1:])
    )


def test_largest_half(host_device, rng):
    x, weight, bias = make_inputs(rng, DEFAULT, np.float16)
    x = np.sign(x) * np.float16(cuda.MOST_HALF)
    with np.errstate(over="ignore"):
        wanted = reference.haar_gate(x, weight, bias)
    result = cuda.haar_gate(host_device(None), x, weight, bias)
    assert np.abs(result - wanted).max() <= TOLERANCE[np.float16] * np.abs(wanted).max()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_no_numbers_are_refused(host_device, rng, value):
    x, weight, bias = make_inputs(rng, DEFAULT, np.float16)
    x[0, 4, 11, 39] = value
    with pytest.raises(InputError, match="x: holds NaN or infinity"):
        cuda.haar_gate(host_device(), x, weight, bias)


def test_half_that_would_overflow_is_refused(host_device, rng):
    x, weight, bias = make_inputs(rng, DEFAULT, np.float16)
    x[0, 0, 0, 0] = 16400
    with pytest.raises(InputError, match="x: holds 16400 in float16; wanted at most 16000"):
        cuda.haar_gate(host_device(), x, weight, bias)


@pytest.mark.parametrize(
    ("position", "array", "said"),
    [
        (0, np.zeros((8, 12, 64), np.float32), r"x: got \(8, 12, 64\)"),
        (0, np.zeros((1, 8, 0, 64), np.float32), r"x: got \(1, 8, 0, 64\)"),
        (0, np.zeros((1, 8, 12, 64)), "x: got .* float64"),
        (0, np.zeros((1, 8, 12, 128), np.float16)[..., ::2], "x: not contiguous"),
        (1, np.zeros((4, 2, 7, 5), np.float32), r"weight: .*wanted \(4, 2, 7, 7\)"),
        (1, np.full((4, 2, 7, 7), np.nan, np.float32), "weight: holds NaN"),
        (2, np.full(4, np.inf, np.float32), "bias: holds NaN or infinity"),
        (1, np.zeros((4, 2, 7, 7), np.float16), "weight: .*wanted .* float32"),
        (2, np.zeros(3, np.float32), r"bias: got \(3,\)"),
        (2, [0.0] * 4, "bias: got list"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(host_device, rng, position, array, said):
    inputs = list(make_inputs(rng, DEFAULT, np.float32))
    inputs[position] = array
    with pytest.raises(InputError, match=said):
        cuda.haar_gate(host_device(), *inputs)


def test_too_many_images_are_refused(host_device):
    with pytest.raises(InputError, match="got 65536 images; wanted at most 65535"):
        cuda.HaarGate(host_device(), (65536, 1, 1, 1), np.float32)


def test_arrays_on_the_device(host_device, rng):
    device, (x, weight, bias) = host_device(None), make_inputs(rng, DEFAULT, np.float32)
    gate = cuda.HaarGate(device, x.shape, np.float32)
    inputs, out = [device.array(a) for a in (x, weight, bias)], device.empty(x.shape, np.float32)
    gate(*[*inputs, out])
    wanted = reference.haar_gate(x, weight, bias)
    assert np.abs(out.numpy() - wanted).max() <= 1e-5 * np.abs(wanted).max()
    with pytest.raises(InputError, match="x: got ndarray; wanted an array on the device"):
        gate(*[x, *inputs[1:], out])


@pytest.mark.parametrize("name", ["x", "out"])
def test_arrays_off_16_bytes_are_refused(host_device, name):
    device = host_device()
    gate = cuda.HaarGate(device, (1, 1, 1, 4), np.float32)
    arrays = {name: device.empty((64,), np.float32) for name in ("x", "weight", "bias", "out")}

    shifted = device.empty((64,), np.float32)
    shifted.address += 4
    with pytest.raises(InputError, match=f"{name}: starts 4 bytes past a multiple of 16"):
        gate(**{**arrays, name: shifted})


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [*SHAPES, (1, 64, 256, 256), (1, 5, 611, 333)], ids=str)
def test_on_a_gpu(rng, shape, dtype):
    with open_device() as device:
        assert_agrees(device, make_inputs(rng, shape, dtype))
