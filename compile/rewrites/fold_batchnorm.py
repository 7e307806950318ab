"""BatchNorm into the convolution before it. Needs onnx."""

import numpy as np
from onnx import ModelProto, NodeProto

from irstd.compile.onnx_graph import (
    add_constant,
    attributes,
    constants,
    consumers,
    copy_of,
    output_names,
    producers,
    remove_nodes,
)

DEFAULT_EPSILON = 1e-5


def fold_batchnorm(model: ModelProto) -> ModelProto:
    """Fold each BatchNorm that is alone in reading a Conv or ConvTranspose into it.

    onnxsim folds those after a Conv; this pass folds what it leaves, above all those after a
    ConvTranspose. A BatchNorm *before* a zero-padded convolution is never folded: that is wrong at
    the border (docs/adr/0005-affine-not-folded.md).

    Pre: constants are initialisers (`remove_dead_code`).
    Post: same result up to rounding; no BatchNorm with constant statistics reads a convolution
    with constant weights that nothing else reads.
    """
    copy = copy_of(model)
    for norm in [node for node in copy.graph.node if node.op_type == "BatchNormalization"]:
        layer = producers(copy).get(norm.input[0])
        if layer is not None and _folds(copy, layer, norm):
            _fold(copy, layer, norm)
    return copy


def _folds(model: ModelProto, layer: NodeProto, norm: NodeProto) -> bool:
    values = constants(model)
    return (
        layer.op_type in ("Conv", "ConvTranspose")
        and all(name in values for name in (*layer.input[1:], *norm.input[1:]) if name)
        and len(consumers(model)[layer.output[0]]) == 1
        and layer.output[0] not in output_names(model)
        and not attributes(norm).get("training_mode", 0)
    )


def _fold(model: ModelProto, layer: NodeProto, norm: NodeProto) -> None:
    values = constants(model)
    gamma, beta, mean, variance = (values[name].astype(np.float64) for name in norm.input[1:5])
    factor = gamma / np.sqrt(variance + attributes(norm).get("epsilon", DEFAULT_EPSILON))
    weight = values[layer.input[1]]
    has_bias = len(layer.input) > 2 and layer.input[2]
    bias = values[layer.input[2]].astype(np.float64) if has_bias else 0.0
    if layer.op_type == "Conv":  # (out, in / groups, kH, kW)
        folded = weight * factor[:, None, None, None]
    else:  # (in, out / groups, kH, kW); output channels of one group are consecutive
        groups = attributes(layer).get("group", 1)
        inputs, outputs = weight.shape[:2]
        per_group = factor.reshape(groups, 1, outputs, 1, 1)
        folded = weight.reshape(groups, inputs // groups, *weight.shape[1:]) * per_group
    new_weight = folded.reshape(weight.shape).astype(weight.dtype)
    new_bias = ((bias - mean) * factor + beta).astype(weight.dtype)
    weight_name = add_constant(model, f"{layer.input[1]}_bn", new_weight)
    bias_name = add_constant(model, f"{layer.input[1]}_bn_bias", new_bias)
    del layer.input[1:]
    layer.input.extend([weight_name, bias_name])
    layer.output[0] = norm.output[0]
    remove_nodes(model, [norm])
