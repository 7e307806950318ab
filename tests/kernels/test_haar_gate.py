"""The Haar gate on a CPU against its definition, and what it refuses."""

import numpy as np
import pytest

from irstd.errors import InputError, UsageError
from irstd.runtime.kernels.haar_gate import reference
from irstd.runtime.kernels.haar_gate.cpu import haar_gate

DEFAULT = (1, 8, 24, 40)
# One axis at a time: images, channels (groups of four and what is left), rows (strips of four, the
# reach of the gate), columns (vectors of eight and what is left).
SHAPES = [
    DEFAULT,
    (3, 8, 24, 40),
    *((1, channels, 24, 40) for channels in (1, 2, 3, 4, 5, 23)),
    *((1, 8, height, 40) for height in (1, 2, 3, 4, 5, 7, 8, 33)),
    *((1, 8, 24, width) for width in (1, 2, 7, 8, 9, 15, 16, 17, 31, 65)),
    (1, 1, 1, 1),
]
RELATIVE = 1e-5  # float32 against float64, of the largest value


def make_inputs(rng, shape, scale=1.0):
    x = scale * rng.standard_normal(shape)
    weight, bias = 0.2 * rng.standard_normal((4, 2, 7, 7)), rng.standard_normal(4)
    return tuple(array.astype(np.float32) for array in (x, weight, bias))


def assert_close(result, wanted):
    assert result.dtype == np.float32
    assert result.shape == wanted.shape
    assert np.abs(result - wanted).max() <= RELATIVE * np.abs(wanted).max()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_computes_what_the_definition_says(shape, rng):
    inputs = make_inputs(rng, shape)
    assert_close(haar_gate(*inputs), reference.haar_gate(*inputs))


@pytest.mark.parametrize("scale", [1e-6, 1e3, 1e30])
def test_faint_and_huge_pixels(scale, rng):
    """Logits of 1e30 saturate the gates; nothing overflows."""
    inputs = make_inputs(rng, DEFAULT, scale)
    with np.errstate(over="ignore"):
        wanted = reference.haar_gate(*inputs)
    assert_close(haar_gate(*inputs), wanted)


def test_constant_maps_have_no_detail_inside():
    """The detail bands vanish off the upper and left border, so that three gates are one half."""
    x = np.full((1, 3, 20, 20), 7, np.float32)
    weight, bias = np.ones((4, 2, 7, 7), np.float32), np.zeros(4, np.float32)
    gates = haar_gate(x, weight, bias)[0, 0] / 7
    np.testing.assert_allclose(gates[5:15, 5:15], 2.5, rtol=1e-6)


@pytest.mark.parametrize("threads", [1, 2, 3, 64])
def test_threads_share_the_rows(threads, rng):
    inputs = make_inputs(rng, (2, 5, 33, 17))
    np.testing.assert_array_equal(haar_gate(*inputs, threads=threads), haar_gate(*inputs))


def test_it_writes_where_it_is_asked_to(rng):
    x, weight, bias = make_inputs(rng, DEFAULT)
    whole = np.full(x.size + 2, np.float32(3))
    out = whole[1:-1].reshape(x.shape)  # 4 bytes off any vector's alignment
    assert haar_gate(x, weight, bias, out=out) is out
    assert_close(out, reference.haar_gate(x, weight, bias))
    assert whole[0] == whole[-1] == 3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0, 0, 0), (1, 4, 23, 39), (0, 2, 11, 8)])
def test_pixels_that_are_no_numbers_are_refused(value, place, rng):
    x, weight, bias = make_inputs(rng, (2, 5, 24, 40))
    x[place] = value
    with pytest.raises(InputError, match="x, weight or bias: holds NaN or infinity"):
        haar_gate(x, weight, bias)


@pytest.mark.parametrize("index", [1, 2])
def test_weights_that_are_no_numbers_are_refused(index, rng):
    inputs = make_inputs(rng, DEFAULT)
    inputs[index].reshape(-1)[-1] = np.nan
    with pytest.raises(InputError, match="x, weight or bias: holds NaN or infinity"):
        haar_gate(*inputs)


def test_sums_that_no_float_holds_are_refused(rng):
    x, weight, bias = make_inputs(rng, DEFAULT)
    x[...] = 1e38
    with pytest.raises(InputError, match="or numbers whose sum is"):
        haar_gate(x, weight, bias)


BAD = {
    "no array": (lambda x, w, b: ([[1.0]], w, b), "x: got list"),
    "float64": (lambda x, w, b: (x.astype(float), w, b), "x: got .* float64; wanted"),
    "byte order": (lambda x, w, b: (x.astype(">f4"), w, b), "x: got"),
    "three axes": (lambda x, w, b: (x[0], w, b), "x: got"),
    "nothing": (lambda x, w, b: (x[:, :, :0], w, b), "x: got"),
    "strided": (lambda x, w, b: (x[..., ::2], w, b), "numpy.ascontiguousarray"),
    "turned": (lambda x, w, b: (x.transpose(0, 1, 3, 2), w, b), "numpy.ascontiguousarray"),
    "kernel": (lambda x, w, b: (x, w[..., :6], b), "weight: got"),
    "bands": (lambda x, w, b: (x, w, b[:3]), "bias: got"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_other_arrays_are_refused(change, message, rng):
    with pytest.raises(InputError, match=message):
        haar_gate(*change(*make_inputs(rng, DEFAULT)))


def test_a_misaligned_array_is_refused(rng):
    x, weight, bias = make_inputs(rng, DEFAULT)
    off = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    with pytest.raises(InputError, match="not aligned"):
        haar_gate(off, weight, bias)


def test_results_that_cannot_be_written_are_refused(rng):
    x, weight, bias = make_inputs(rng, DEFAULT)
    with pytest.raises(InputError, match="out: shares memory"):
        haar_gate(x, weight, bias, out=x)
    with pytest.raises(InputError, match="out: got"):
        haar_gate(x, weight, bias, out=np.empty((1, 8, 24, 41), np.float32))
    frozen = np.empty_like(x)
    frozen.flags.writeable = False
    with pytest.raises(InputError, match="out: is read-only"):
        haar_gate(x, weight, bias, out=frozen)


@pytest.mark.parametrize("threads", [0, -1, 2.0, "2", 100_000])
def test_odd_thread_counts_are_refused(threads, rng):
    with pytest.raises(UsageError, match="threads"):
        haar_gate(*make_inputs(rng, DEFAULT), threads=threads)
