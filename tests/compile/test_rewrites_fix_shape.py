import numpy as np
import pytest
from onnx import helper

from irstd.compile.graph_facts import run_graph
from irstd.compile.onnx_graph import copy_of, dimensions
from irstd.compile.rewrites import fix_shape
from irstd.errors import ExportError

node = helper.make_node


@pytest.mark.parametrize("size", [(16, 16), (32, 16), (48, 112)])
def test_shape_is_fixed_everywhere_and_the_result_stays(size, make_graph, make_image):
    graph = make_graph("acm", "group", 1)
    before = copy_of(graph)
    fixed = fix_shape(graph, *size)
    assert graph == before
    assert dimensions(fixed.graph.input[0]) == (1, 1, *size)
    assert dimensions(fixed.graph.output[0]) == (1, 1, *size)
    shapes = [dimensions(value) for value in fixed.graph.value_info]
    assert all(shape is not None and None not in shape for shape in shapes)
    image = make_image(1, *size)
    np.testing.assert_array_equal(run_graph(fixed, image), run_graph(graph, image))


def test_fixing_twice_is_fixing_once(make_graph):
    fixed = fix_shape(make_graph("alcnet", "batch", 1), 32, 48)
    assert fix_shape(fixed, 32, 48) == fixed


def test_symbolic_batch_becomes_one(make_small):
    model = make_small([node("Relu", ["image"], ["logits"])], size_hw=("H", "W"))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    assert dimensions(fix_shape(model, 8, 9).graph.input[0]) == (1, 1, 8, 9)


def test_size_that_arithmetic_hides_is_measured(make_small, make_image):
    """The size goes through floats, which shape inference does not follow."""
    model = make_small(
        [
            node("Shape", ["image"], ["shape"]),
            node("Cast", ["shape"], ["float"], to=1),
            node("Mul", ["float", "one"], ["same"]),
            node("Cast", ["same"], ["sizes"], to=7),
            node("MaxPool", ["image"], ["small"], kernel_shape=[2, 2], strides=[2, 2]),
            node("Resize", ["small", "", "", "sizes"], ["logits"], mode="linear"),
        ],
        {"one": np.float32([1, 1, 1, 1])},
        size_hw=("H", "W"),
    )
    fixed = fix_shape(model, 10, 14)
    assert dimensions(fixed.graph.output[0]) == (1, 1, 10, 14)
    image = make_image(1, 10, 14)
    np.testing.assert_array_equal(run_graph(fixed, image), run_graph(model, image))


@pytest.mark.parametrize(
    ("size", "hint"),
    [
        ((50, 50), "multiples of 16 px, for example --imgsz 64x64"),
        ((63, 62), "multiples of 16 px, for example --imgsz 64x64"),
        ((24, 32), "--imgsz 32x32"),
    ],
)
def test_wrong_multiple_names_one_that_fits(size, hint, make_graph):
    with pytest.raises(ExportError, match=hint):
        fix_shape(make_graph("acm", "batch", 1), *size)


def test_other_static_size_is_refused(make_small):
    model = make_small([node("Relu", ["image"], ["logits"])], size_hw=(8, 8))
    with pytest.raises(ExportError, match=r"fixed at \(1, 1, 8, 8\), wanted \(1, 1, 8, 16\)"):
        fix_shape(model, 8, 16)


@pytest.mark.parametrize("stride", [1, 2])
def test_output_must_be_a_mask_of_the_input(stride, make_small):
    pool = node("MaxPool", ["image"], ["logits"], kernel_shape=[2, 2], strides=[stride, stride])
    model = make_small([pool], size_hw=("H", "W"))
    with pytest.raises(ExportError, match=r"wanted a mask \(1, 1, 32, 32\)"):
        fix_shape(model, 32, 32)


def test_two_channels_are_no_mask(make_small):
    join = node("Concat", ["image", "image"], ["logits"], axis=1)
    model = make_small([join], size_hw=("H", "W"), out_channels=2)
    with pytest.raises(ExportError, match="wanted a mask"):
        fix_shape(model, 8, 8)


@pytest.mark.parametrize("size", [(0, 8), (8, -1)])
def test_sizes_are_positive(size, make_small):
    model = make_small([node("Relu", ["image"], ["logits"])], size_hw=("H", "W"))
    with pytest.raises(ExportError, match="above 0"):
        fix_shape(model, *size)
