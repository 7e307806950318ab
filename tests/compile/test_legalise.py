"""Resize as matrix products: the same numbers, and only where it pays."""

import numpy as np
import pytest
from onnx import helper

from irstd.compile.graph_facts import run_graph
from irstd.compile.legalise import MAX_MACS_PER_PIXEL, legalise, resize_as_matmul
from irstd.targets import TARGETS

node = helper.make_node


@pytest.fixture
def resize_net(make_small):
    """A Resize alone, its output cut back to one known size so that any size can be asked for."""

    def make(before, *, scales=None, sizes=None, channels=1, **attributes):
        constants = {}
        inputs = ["image", "", "", ""]
        if scales is not None:
            constants["scales"], inputs[2] = np.float32([1, 1, *scales]), "scales"
        if sizes is not None:
            constants["sizes"], inputs[3] = np.int64([1, channels, *sizes]), "sizes"
        attributes = {"mode": "linear", **attributes}
        while not inputs[-1]:
            inputs.pop()
        resize = node("Resize", inputs, ["logits"], "resize", **attributes)
        return make_small(
            [resize], constants, channels=channels, size_hw=before, out_channels=channels, opset=18
        )

    return make


def kinds(model):
    return [item.op_type for item in model.graph.node]


def assert_same(model, seed=0):
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    image = np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)
    rewritten = resize_as_matmul(model)
    assert kinds(rewritten) == ["MatMul", "MatMul"]
    before, after = run_graph(model, image), run_graph(rewritten, image)
    assert after.shape == before.shape
    np.testing.assert_allclose(after, before, rtol=0, atol=3e-6)


MODES = ("half_pixel", "pytorch_half_pixel", "align_corners")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("before", [(8, 8), (7, 9), (1, 5), (2, 1), (1, 1)])
@pytest.mark.parametrize("after", [(16, 16), (31, 10), (3, 5), (1, 1)])
def test_sizes(mode, before, after, resize_net):
    """Enlarging, shrinking and both, odd sizes, single pixels; borders are in every case."""
    assert_same(resize_net(before, sizes=after, coordinate_transformation_mode=mode))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scales", [(2, 2), (4, 4), (3, 1), (1.5, 1.5), (0.5, 2.5), (1.25, 0.75)])
def test_scales_hold_also_where_the_size_is_rounded_down(mode, scales, resize_net):
    assert_same(resize_net((7, 10), scales=scales, coordinate_transformation_mode=mode))


def test_default_mode_is_half_pixel(resize_net):
    assert_same(resize_net((5, 6), sizes=(20, 24)))


def test_rows_of_the_matrices_sum_to_one(resize_net):
    rewritten = resize_as_matmul(resize_net((5, 6), sizes=(20, 24)))
    constant = np.full((1, 1, 5, 6), 3.25, np.float32)
    np.testing.assert_array_equal(run_graph(rewritten, constant), 3.25)


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "nearest"},
        {"mode": "cubic"},
        {"antialias": 1},
        {"coordinate_transformation_mode": "asymmetric"},
        {"channels": 2},
    ],
)
def test_anything_else_stays(options, resize_net):
    model = resize_net((8, 8), sizes=(16, 16), **options)
    assert kinds(resize_as_matmul(model)) == ["Resize"]


@pytest.mark.parametrize(("before", "stays"), [((64, 64), False), ((256, 256), True)])
def test_large_maps_stay(before, stays, resize_net):
    after = tuple(2 * side for side in before)
    macs = before[1] + before[0] * before[1] / after[1]
    assert (macs > MAX_MACS_PER_PIXEL) == stays
    model = resize_as_matmul(resize_net(before, sizes=after))
    assert ("Resize" in kinds(model)) == stays


def test_interface_and_the_rest_of_the_graph_stay(make_tiny, make_image):
    from irstd.compile.rewrites import rewrite

    plain, _ = rewrite(make_tiny(), 32, 32)
    before = plain.SerializeToString()
    rewritten = legalise(plain, TARGETS["cpu"])
    assert plain.SerializeToString() == before  # the argument is left alone
    assert [v.name for v in rewritten.graph.output] == [v.name for v in plain.graph.output]
    assert kinds(rewritten).count("MatMul") == 2
    image = make_image(1, 32, 32)
    np.testing.assert_allclose(run_graph(rewritten, image), run_graph(plain, image), atol=1e-5)


@pytest.mark.parametrize("target", [name for name in TARGETS if name != "cpu"])
def test_other_targets_get_the_graph_itself(target, resize_net):
    model = resize_net((8, 8), sizes=(16, 16))
    assert legalise(model, TARGETS[target]) is model
