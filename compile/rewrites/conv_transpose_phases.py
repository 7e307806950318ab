"""Transposed convolution as convolution and DepthToSpace. Needs onnx."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from irstd.compile.onnx_graph import (
    add_constant,
    attributes,
    constants,
    copy_of,
    fresh_name,
    remove_nodes,
)


def split_conv_transpose(model: ModelProto) -> ModelProto:
    """Replace ConvTransposes that enlarge by their stride by Conv and DepthToSpace.

    Output pixel `s m + a` of a ConvTranspose with stride s and padding p sums `x[i] w[k]` over
    `s i = s m + a + p - k`: each phase a is an ordinary convolution of x with every s-th tap. One
    Conv computes the s * s phases as channels, DepthToSpace interleaves them. With zero padding
    this holds at the border too. A 4x4 kernel of stride 2 becomes a 3x3 kernel whose taps are 5/9
    zeros: 2.25 times the multiplications, in an operator that every engine runs in INT8.

    Pre: constants are initialisers (`remove_dead_code`).
    Post: same result up to rounding; no ConvTranspose is left that has constant weights, one group,
    no dilation, equal strides and an output of stride times its input.
    """
    copy = copy_of(model)
    values = constants(copy)
    for node in [node for node in copy.graph.node if node.op_type == "ConvTranspose"]:
        if node.input[1] in values and (padding := _padding(node, values)) is not None:
            _split(copy, node, values, padding)
    return copy


def _padding(node: NodeProto, values: dict[str, NDArray[Any]]) -> tuple[int, int] | None:
    """Return the padding before the first row and column, None for another kind of node."""
    given = attributes(node)
    stride_y, stride_x = given.get("strides", [1, 1])
    top, left, bottom, right = given.get("pads", [0, 0, 0, 0])
    extra_y, extra_x = given.get("output_padding", [0, 0])
    height, width = values[node.input[1]].shape[2:]
    plain = (
        given.get("group", 1) == 1
        and list(given.get("dilations", [1, 1])) == [1, 1]
        and given.get("auto_pad", b"NOTSET") == b"NOTSET"
        and "output_shape" not in given
    )
    enlarges = (
        stride_y == stride_x > 1
        and height - top - bottom + extra_y == stride_y
        and width - left - right + extra_x == stride_x
    )
    return (top, left) if plain and enlarges else None


def _split(
    model: ModelProto, node: NodeProto, values: dict[str, NDArray[Any]], padding: tuple[int, int]
) -> None:
    weight = values[node.input[1]]
    stride = attributes(node)["strides"][0]
    kernel, before, after = _phase_kernels(weight, stride, padding)
    inputs = [node.input[0], add_constant(model, f"{node.input[1]}_phases", kernel)]
    if len(node.input) > 2 and node.input[2]:
        bias = np.tile(values[node.input[2]], stride * stride)
        inputs.append(add_constant(model, f"{node.input[2]}_phases", bias))
    phases = fresh_name(model, f"{node.output[0]}_phases")
    conv = helper.make_node(
        "Conv",
        inputs,
        [phases],
        name=f"{node.name}_phases",
        kernel_shape=kernel.shape[2:],
        pads=[*before, *after],
    )
    # DCR: the phase is the slow part of the channel index, as in the kernels above.
    shuffle = helper.make_node(
        "DepthToSpace",
        [phases],
        [node.output[0]],
        name=f"{node.name}_interleave",
        blocksize=stride,
        mode="DCR",
    )
    place = list(model.graph.node).index(node)
    remove_nodes(model, [node])
    model.graph.node.insert(place, shuffle)
    model.graph.node.insert(place, conv)


def _phase_kernels(
    weight: NDArray[Any], stride: int, padding: tuple[int, int]
) -> tuple[NDArray[Any], list[int], list[int]]:
    """Sort the taps of (in, out, kH, kW) into (phases * out, in, h, w), with padding before, after.

    Tap k serves phase `(k - p) mod s` at offset `(phase + p - k) / s` from the pixel's own column.
    """
    axes = []
    for length, before in zip(weight.shape[2:], padding, strict=True):
        taps = []
        for tap in range(length):
            phase = (tap - before) % stride
            taps.append((phase, (phase + before - tap) // stride))
        axes.append(taps)
    lowest = [min(0, *(offset for _, offset in taps)) for taps in axes]
    highest = [max(0, *(offset for _, offset in taps)) for taps in axes]
    size = [high - low + 1 for low, high in zip(lowest, highest, strict=True)]
    inputs, outputs = weight.shape[:2]
    kernel = np.zeros((stride, stride, outputs, inputs, *size), weight.dtype)
    for tap_y, (phase_y, offset_y) in enumerate(axes[0]):
        for tap_x, (phase_x, offset_x) in enumerate(axes[1]):
            place = kernel[phase_y, phase_x, :, :, offset_y - lowest[0], offset_x - lowest[1]]
            place[:] = weight[:, :, tap_y, tap_x].T
    return kernel.reshape(-1, inputs, *size), [-low for low in lowest], highest
