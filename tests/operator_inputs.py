"""Inputs of the fused operators by name, in their order, for tests of graphs that hold one."""

import numpy as np

RELATIVE = 1e-5  # float32 against float64, of the largest value


def assert_close(result, wanted):
    assert result.shape == wanted.shape
    assert np.abs(result - wanted).max() <= RELATIVE * np.abs(wanted).max()


def floats(rng, *shape, scale=1.0):
    return (scale * rng.standard_normal(shape)).astype(np.float32)


def haar_inputs(rng, shape):
    weight, bias = floats(rng, 4, 2, 7, 7, scale=0.2), floats(rng, 4)
    return {"x": floats(rng, *shape), "weight": weight, "bias": bias}


def split_inputs(rng, shape):
    return {
        "x": floats(rng, *shape),
        "cutoff": rng.uniform(0.01, 0.7, shape[1]).astype(np.float32),
        "gate_weight": floats(rng, 2, 2, 7, 7, scale=0.2),
        "gate_bias": floats(rng, 2),
        "gamma": floats(rng, 2, shape[1]),
    }


def attention_inputs(rng, level_hw, query_hw, images, heads, d_head, points, spread_px=3.0):
    """Without a grid of queries, eleven with reference points."""
    positions = sum(h * w for h, w in zip(level_hw[::2], level_hw[1::2], strict=True))
    queries = 11 if query_hw is None else query_hw[0] * query_hw[1]
    shape = (images, queries, heads, len(level_hw) // 2, points)
    inputs = {
        "value": floats(rng, images, positions, heads, d_head),
        "offsets": floats(rng, *shape, 2, scale=spread_px),
        "logits": floats(rng, *shape, scale=3),
    }
    if query_hw is None:
        inputs["reference_points"] = rng.random((images, queries, 2), np.float32)
    return inputs
