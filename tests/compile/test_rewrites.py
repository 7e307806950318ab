"""All passes in their order: what remains of a network, and that it computes the same."""

import numpy as np
import pytest

from irstd.compile.graph_facts import count_macs, run_graph
from irstd.compile.onnx_graph import copy_of, dimensions
from irstd.compile.rewrites import fix_shape, rewrite

VARIANTS = [(n, m, c) for n in ("acm", "alcnet") for m in ("batch", "group") for c in (1, 3)]
RELATIVE = 2e-5


def apply(affine, image):
    scale, offset = (np.array(part).reshape(-1, 1, 1) for part in (affine.scale, affine.offset))
    return (image * scale + offset).astype(np.float32)


def assert_close(got, wanted):
    assert np.abs(got - wanted).max() <= RELATIVE * np.abs(wanted).max()


@pytest.mark.parametrize(("network", "norm", "channels"), VARIANTS)
def test_rewritten_equals_exported(network, norm, channels, make_graph, make_image):
    graph = make_graph(network, norm, channels)
    before = copy_of(graph)
    image = make_image(channels, 48, 64)
    wanted = run_graph(graph, image)
    for split in (False, True):
        plain, affine = rewrite(graph, 48, 64, split_transposed=split)
        assert graph == before
        assert_close(run_graph(plain, apply(affine, image)), wanted)


def operators(model):
    return [item.op_type for item in model.graph.node]


def test_only_what_computes_remains(make_graph):
    plain, _ = rewrite(make_graph("acm", "batch", 1), 64, 64)
    assert set(operators(plain)) == {
        "Add",
        "Conv",
        "ConvTranspose",
        "GlobalAveragePool",
        "MaxPool",
        "Mul",
        "Relu",
        "Resize",
        "Sigmoid",
    }
    assert operators(plain).count("Mul") == 4  # one a gate
    assert operators(plain)[-1] == "Resize"
    assert dimensions(plain.graph.input[0]) == dimensions(plain.graph.output[0]) == (1, 1, 64, 64)
    values = {value.name: dimensions(value) for value in plain.graph.value_info}
    assert all(name in values for item in plain.graph.node[:-1] for name in item.output)
    assert all(shape and None not in shape for shape in values.values())


def test_rewriting_again_changes_nothing(make_graph, make_image):
    plain, _ = rewrite(make_graph("alcnet", "group", 3), 32, 32)
    again, affine = rewrite(plain, 32, 32)
    assert affine.scale == (1, 1, 1)
    assert affine.offset == (0, 0, 0)
    assert operators(again) == operators(plain)
    image = make_image(3, 32, 32)
    np.testing.assert_array_equal(run_graph(again, image), run_graph(plain, image))


def test_same_source_same_bytes(make_graph):
    graph = make_graph("acm", "group", 1)
    first, second = (rewrite(graph, 32, 48)[0] for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(
        deterministic=True
    )


def test_split_costs_nine_quarters_of_the_transposed_layers(make_graph):
    graph = make_graph("acm", "batch", 1)
    whole, split = (rewrite(graph, 64, 64, split_transposed=flag)[0] for flag in (False, True))
    assert count_macs(whole) == count_macs(fix_shape(graph, 64, 64))
    assert count_macs(split) - count_macs(whole) == (9 * 4 - 16) * (64 * 32 * 16 + 32 * 16 * 64)


@pytest.mark.parametrize(
    ("file", "network"),
    [("acm_sirst3_point.pth.tar", "acm"), ("alcnet_sirst3.pth.tar", "alcnet")],
)
def test_public_checkpoints(file, network, weights_root, make_image):
    pytest.importorskip("torch")
    from irstd.compile.checkpoint import load_checkpoint
    from irstd.compile.export import export

    checkpoint = load_checkpoint(network, weights_root / file)
    graph = export(checkpoint.module, checkpoint.options.in_channels)
    plain, affine = rewrite(graph, 64, 96)
    image = make_image(checkpoint.options.in_channels, 64, 96)
    assert_close(run_graph(plain, apply(affine, image)), run_graph(graph, image))
