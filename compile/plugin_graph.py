"""The form of a graph in which TensorRT's plugins run the fused operators. Needs onnx.

TensorRT's parser finds a plugin by a node's `op_type` and two attributes, but only if the model has
no local function of that name: functions come first, by name alone and whatever their domain or
overload (onnx-tensorrt, ModelImporter.cpp, `parseNode`). So this form has no bodies, and no program
but TensorRT with the plugins reads it. The same graph in standard operators lies beside it.
"""

from collections.abc import Mapping
from typing import TypeGuard

from onnx import ModelProto, NodeProto, TensorProto, helper

from irstd.compile.half import ACTIVATION_LIMIT
from irstd.compile.onnx_graph import (
    attributes,
    consumers,
    copy_of,
    output_names,
    producers,
    remove_nodes,
)
from irstd.compile.operators.nodes import fused_nodes
from irstd.compile.rewrites.dead_code import remove_dead_code
from irstd.runtime.kernels.haar_gate import cuda as haar_gate
from irstd.runtime.kernels.spectral_split import cuda as spectral_split
from irstd.runtime.kernels.tensorrt.plugin_library import NODE_ATTRIBUTES

# How many inputs of a plugin, from the first on, are of the type that it computes in; the others
# are float32 always (`float32_inputs` in runtime/kernels/tensorrt/<op>_plugin.cpp).
_TYPED_INPUTS = {"HaarGate": 1, "MSDeformAttn": 3, "SpectralSplit": 1}
# Largest absolute value seen with which a plugin may compute in half; what is seen later may be
# twice that.
_LIMITS = {"HaarGate": haar_gate.MOST_HALF / 2, "SpectralSplit": spectral_split.MOST_HALF / 2}


def plugin_graph(model: ModelProto, maxima: Mapping[str, float] | None = None) -> ModelProto:
    """Make the fused nodes of a graph plugin nodes.

    Args:
        model: Checked graph whose fused nodes compute in float32, between Casts where the graph
            around them is float16 (`to_float16`).
        maxima: Largest absolute value seen of each activation, as for `to_float16`.

    Returns:
        A copy without local functions. Its fused nodes carry plugin_library.NODE_ATTRIBUTES; those
        that only Casts keep apart from float16 read and write it, as the plugins can.
    """
    out = copy_of(model)
    for node in fused_nodes(out):
        if casts := _between_halves(out, node, maxima or {}):
            before, after = casts
            for index, cast in enumerate(before):
                node.input[index] = cast.input[0]
            node.output[0] = after.output[0]
            remove_nodes(out, [after])
        node.overload = ""
        node.attribute.extend(
            helper.make_attribute(name, value) for name, value in NODE_ATTRIBUTES.items()
        )
    del out.functions[:]
    return remove_dead_code(out)


def _between_halves(
    model: ModelProto, node: NodeProto, maxima: Mapping[str, float]
) -> tuple[list[NodeProto], NodeProto] | None:
    """Return the Casts that keep a node apart from float16: before its inputs, after its output.

    None where something else does, or the range of its kernel. What nobody has observed, because
    the graph in standard operators has no such value, is as large as `to_float16` allows.
    """
    makers = producers(model)
    typed = [makers.get(name) for name in node.input[: _TYPED_INPUTS[node.op_type]]]
    before = [cast for cast in typed if _casts_to(cast, TensorProto.FLOAT)]
    after = consumers(model).get(node.output[0], [])
    if len(before) < len(typed) or len(after) != 1 or node.output[0] in output_names(model):
        return None
    limit = _LIMITS.get(node.op_type, ACTIVATION_LIMIT)
    values = (*(cast.input[0] for cast in before), node.output[0])
    seen = max(maxima.get(name, ACTIVATION_LIMIT) for name in values)
    fits = seen <= limit and _casts_to(after[0], TensorProto.FLOAT16)
    return (before, after[0]) if fits else None


def _casts_to(node: NodeProto | None, kind: int) -> TypeGuard[NodeProto]:
    return node is not None and node.op_type == "Cast" and attributes(node)["to"] == kind
