import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irstd.errors import InputError
from irstd.runtime.preprocess import Preprocessor, resize
from irstd.types import Fit, InputSpec

MEAN, STD = 95.01, 41.511


def grey_spec(height=16, width=24, **changes):
    values = {"scale": (1 / STD,), "offset": (-MEAN / STD,), "pad_level": (MEAN,)}
    return InputSpec(height=height, width=width, **{**values, **changes})


def random_frame(shape, bit_depth=8, dtype=None, seed=0):
    natural = np.uint8 if bit_depth == 8 else np.uint16
    levels = np.random.default_rng(seed).integers(0, 1 << bit_depth, shape)
    return levels.astype(dtype or natural)


def only(tensors):
    (tensor,) = (tensor.copy() for tensor in tensors)
    return tensor


def pad_after_normalise(frame, spec):
    """The definition, in float64: normalise, then pad with zeros."""
    tensor = np.zeros((spec.height, spec.width))
    tensor[: frame.shape[0], : frame.shape[1]] = (frame.astype(np.float64) - MEAN) / STD
    return tensor


@pytest.mark.parametrize("shape", [(1, 1), (1, 24), (16, 1), (15, 23), (16, 24), (7, 9)])
def test_a_smaller_frame_equals_pad_after_normalise_to_the_border(shape):
    spec = grey_spec()
    frame = random_frame(shape)
    tensor = only(Preprocessor(spec).tensors(frame))
    assert tensor.shape == (1, 1, 16, 24)
    assert tensor.dtype == np.float32
    np.testing.assert_allclose(tensor[0, 0], pad_after_normalise(frame, spec), atol=1e-6)


def test_padding_is_renewed_when_frames_change_their_size():
    spec = grey_spec()
    preprocessor = Preprocessor(spec)
    only(preprocessor.tensors(random_frame((16, 24))))
    for shape in [(5, 24), (16, 6), (3, 3), (9, 9), (16, 24)]:
        frame = random_frame(shape)
        tensor = only(preprocessor.tensors(frame))
        np.testing.assert_allclose(tensor[0, 0], pad_after_normalise(frame, spec), atol=1e-6)


@pytest.mark.parametrize("bit_depth", [8, 14, 16])
@pytest.mark.parametrize("as_float", [False, True])
def test_every_depth_is_the_affine_of_its_grey_levels(bit_depth, as_float):
    top = (1 << bit_depth) - 1
    spec = grey_spec(bit_depth=bit_depth, scale=(2 / top,), offset=(-1.0,), pad_level=(top / 2,))
    frame = random_frame((16, 24), bit_depth, np.float32 if as_float else None)
    tensor = only(Preprocessor(spec).tensors(frame))
    np.testing.assert_allclose(tensor[0, 0], frame.astype(np.float64) * 2 / top - 1, atol=1e-6)


def test_three_channels_are_the_grey_frame_under_three_affines():
    scale, offset, pad = (0.01, 0.02, 0.03), (-1.0, 0.0, 1.0), (0.0, 10.0, 250.0)
    spec = grey_spec(scale=scale, offset=offset, pad_level=pad)
    frame = random_frame((10, 20))
    tensor = only(Preprocessor(spec).tensors(frame))
    for channel in range(3):
        wanted = np.full((16, 24), pad[channel] * scale[channel] + offset[channel])
        wanted[:10, :20] = frame * scale[channel] + offset[channel]
        np.testing.assert_allclose(tensor[0, channel], wanted, rtol=1e-6, atol=1e-6)


def test_per_frame_max_divides_by_the_brightest_pixel_of_the_whole_frame():
    spec = grey_spec(scale=(2.0,), offset=(-1.0,), pad_level=(0.5,), per_frame_max=True)
    frame = np.zeros((16, 36), np.uint8)
    frame[3, 34] = 200
    frame[0, 0] = 50
    left, right = (tensor.copy() for tensor in Preprocessor(spec).tensors(frame))
    assert left[0, 0, 0, 0] == pytest.approx(50 / 200 * 2 - 1)
    assert right.max() == pytest.approx(1)
    black = only(Preprocessor(spec).tensors(np.zeros((4, 4), np.uint8)))
    assert black[0, 0, 0, 0] == -1
    assert black[0, 0, 5, 5] == 0  # the pad value does not depend on the frame


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 90), width=st.integers(1, 90), seed=st.integers(0, 99))
def test_tiles_hold_their_part_of_the_frame(height, width, seed):
    spec = grey_spec(40, 48)
    preprocessor = Preprocessor(spec)
    frame = random_frame((height, width), seed=seed)
    tensors = [tensor.copy() for tensor in preprocessor.tensors(frame)]
    tiles = preprocessor.tiles((height, width))
    assert len(tensors) == len(tiles)
    for tile, tensor in zip(tiles, tensors, strict=True):
        wanted = pad_after_normalise(frame[tile.frame], spec)
        np.testing.assert_allclose(tensor[0, 0], wanted, atol=1e-6)


def test_the_tensor_is_one_buffer():
    preprocessor = Preprocessor(grey_spec())
    first = next(preprocessor.tensors(random_frame((8, 8))))
    assert next(preprocessor.tensors(random_frame((9, 9), seed=1))) is first
    assert first.flags.c_contiguous


def test_memory_layout_does_not_matter():
    frame = random_frame((24, 48))
    spec = grey_spec(16, 24)
    wanted = only(Preprocessor(spec).tensors(np.ascontiguousarray(frame[4:20, ::2])))
    np.testing.assert_array_equal(only(Preprocessor(spec).tensors(frame[4:20, ::2])), wanted)
    fortran = np.asfortranarray(frame[4:20, ::2])
    np.testing.assert_array_equal(only(Preprocessor(spec).tensors(fortran)), wanted)


def test_the_frame_is_not_changed():
    frame = random_frame((16, 24), dtype=np.float32)
    before = frame.copy()
    only(Preprocessor(grey_spec(fit=Fit.RESIZE)).tensors(frame))
    only(Preprocessor(grey_spec()).tensors(frame))
    np.testing.assert_array_equal(frame, before)


@pytest.mark.parametrize("shape", [(8, 8), (16, 24), (64, 64), (8, 90), (90, 8), (1, 1)])
def test_resize_fills_the_whole_input_and_keeps_a_constant(shape):
    spec = grey_spec(fit=Fit.RESIZE)
    tensor = only(Preprocessor(spec).tensors(np.full(shape, 180, np.uint8)))
    np.testing.assert_allclose(tensor, (180 - MEAN) / STD, rtol=1e-5)


def test_resize_interpolates_in_float_before_the_affine():
    frame = np.array([[0, 1]], np.uint8)  # in 8 bits there is nothing between 0 and 1
    spec = grey_spec(1, 4, scale=(1.0,), offset=(0.0,), pad_level=(0.0,), fit=Fit.RESIZE)
    tensor = only(Preprocessor(spec).tensors(frame))
    np.testing.assert_allclose(tensor[0, 0, 0], [0, 0.25, 0.75, 1], atol=1e-6)


def test_a_shrunk_target_is_dimmed_not_lost():
    image = np.zeros((64, 64), np.float32)
    image[13, 42] = 16
    for size in [(16, 16), (16, 64), (64, 16), (16, 128)]:
        small = resize(image, size)
        assert small.shape == size
        share = size[0] * size[1] / image.size
        assert small.sum() == pytest.approx(image.sum() * share, rel=1e-4)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (None, "NoneType"),
        ([[1, 2], [3, 4]], "list"),
        (np.zeros((4, 4, 1), np.uint8), r"\(4, 4, 1\).*\(H, W\)"),
        (np.zeros((1, 1, 4, 4), np.uint8), r"\(1, 1, 4, 4\)"),
        (np.zeros(4, np.uint8), r"\(4,\)"),
        (np.zeros((0, 4), np.uint8), r"\(0, 4\)"),
        (np.zeros((4, 4), np.float64), "float64.*uint8 for bit depth 8"),
        (np.zeros((4, 4), np.uint16), "uint16.*uint8 for bit depth 8"),
        (np.zeros((4, 4), np.int8), "int8"),
        (np.zeros((4, 4), bool), "bool"),
        (np.zeros((4, 4), object), "object"),
        (np.full((4, 4), np.nan, np.float32), "NaN"),
        (np.full((4, 4), np.inf, np.float32), "infinity"),
        (np.full((4, 4), -np.inf, np.float32), "infinity"),
        (np.full((4, 4), 255.5, np.float32), r"255.5; wanted 0 to 255"),
        (np.full((4, 4), -0.5, np.float32), r"-0.5 to -0.5; wanted 0 to 255"),
    ],
)
def test_a_wrong_frame_is_refused_before_anything_is_yielded(frame, words):
    with pytest.raises(InputError, match=words) as caught:
        Preprocessor(grey_spec()).tensors(frame)
    assert "\n" not in str(caught.value)


def test_one_nan_among_good_pixels_is_found():
    frame = np.zeros((16, 24), np.float32)
    frame[15, 23] = np.nan
    with pytest.raises(InputError, match="NaN"):
        Preprocessor(grey_spec()).tensors(frame)


def test_levels_beyond_14_bits_are_refused_in_uint16():
    spec = grey_spec(bit_depth=14)
    frame = np.zeros((16, 24), np.uint16)
    frame[0, 0] = 16383
    only(Preprocessor(spec).tensors(frame))
    frame[0, 0] = 16384
    with pytest.raises(InputError, match=r"16384; wanted 0 to 16383 \(bit depth 14\)"):
        Preprocessor(spec).tensors(frame)
    only(Preprocessor(grey_spec(bit_depth=16)).tensors(frame))


def test_an_8_bit_frame_for_a_14_bit_network_is_refused():
    with pytest.raises(InputError, match="uint8; wanted uint16 for bit depth 14"):
        Preprocessor(grey_spec(bit_depth=14)).tensors(np.zeros((4, 4), np.uint8))
