"""A graph of one operator, or of deformable attention with its layers. Needs onnx."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, helper, numpy_helper

from irstd.compile.fused import write_out
from irstd.compile.onnx_graph import checked
from irstd.compile.operators.nodes import DOMAIN_VERSION, attach_bodies
from irstd.runtime.kernels.ms_deform_attn.reference import Projections
from irstd.runtime.kernels.openvino_extension import DOMAIN

RESULT = "y"
_OPSET, _IR_VERSION = 17, 8


def fused_graph(
    operator: str,
    arrays: Mapping[str, NDArray[Any]],
    shape: Sequence[int],
    *,
    constants: Collection[str] = (),
    **attributes: Sequence[int],
) -> ModelProto:
    """Return a graph whose one node is a fused operator with its body attached.

    Args:
        operator: "HaarGate", "SpectralSplit" or "MSDeformAttn".
        arrays: Every input by its name, in the operator's order.
        shape: Of the result.
        constants: Names of the inputs that are part of the graph, as trained weights are.
        attributes: Of the node.

    Raises:
        ExportError: The inputs or attributes do not fit the operator.
    """
    given: dict[str, Any] = {name: values for name, values in attributes.items() if len(values)}
    node = helper.make_node(operator, list(arrays), [RESULT], name=operator, domain=DOMAIN, **given)
    kept = [numpy_helper.from_array(arrays[name], name) for name in arrays if name in constants]
    inputs = [
        _value(name, array.dtype, array.shape)
        for name, array in arrays.items()
        if name not in constants
    ]
    result = _value(RESULT, np.dtype(np.float32), shape)
    return _model(helper.make_graph([node], operator, inputs, [result], kept))


def plain_graph(
    operator: str,
    arrays: Mapping[str, NDArray[Any]],
    shape: Sequence[int],
    *,
    constants: Collection[str] = (),
    **attributes: Sequence[int],
) -> ModelProto:
    """Return what `fused_graph` returns, written out in standard operators."""
    return write_out(fused_graph(operator, arrays, shape, constants=constants, **attributes))


def plain_module(
    layers: Projections,
    heads: int,
    shapes: Mapping[str, Sequence[int]],
    *,
    level_hw: Sequence[int],
    query_hw: Sequence[int],
) -> ModelProto:
    """Return deformable attention with its projections, written out in standard operators.

    Args:
        layers: The weights, constants of the graph.
        heads: M.
        shapes: Of the inputs `query`, (N, Lq, C), and `source`, (N, S, C).
        level_hw: As in the node.
        query_hw: As in the node.

    Raises:
        ExportError: They do not fit together.
    """
    images, queries, _ = shapes["query"]
    positions = shapes["source"][1]
    levels = len(level_hw) // 2
    splits = {
        "value": [images, positions, heads, -1],
        "offsets": [images, queries, heads, levels, -1, 2],
        "logits": [images, queries, heads, levels, -1],
    }
    nodes, kept = [], []

    def linear(source: str, weight: NDArray[Any], bias: NDArray[Any], result: str) -> None:
        for name, array in ((f"{result}_weight", weight.T), (f"{result}_bias", bias)):
            kept.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        product = f"{result}_product"
        nodes.append(helper.make_node("MatMul", [source, f"{result}_weight"], [product]))
        nodes.append(helper.make_node("Add", [product, f"{result}_bias"], [result]))

    linear("source", layers.value_weight, layers.value_bias, "value_flat")
    linear("query", layers.offset_weight, layers.offset_bias, "offsets_flat")
    linear("query", layers.logit_weight, layers.logit_bias, "logits_flat")
    for name, shape in splits.items():
        kept.append(numpy_helper.from_array(np.array(shape, np.int64), f"{name}_shape"))
        nodes.append(helper.make_node("Reshape", [f"{name}_flat", f"{name}_shape"], [name]))
    nodes.append(
        helper.make_node(
            "MSDeformAttn", list(splits), ["attended"], name="attention", domain=DOMAIN,
            level_hw=list(level_hw), query_hw=list(query_hw),
        )
    )  # fmt: skip
    linear("attended", layers.output_weight, layers.output_bias, RESULT)
    floats = np.dtype(np.float32)
    inputs = [_value(name, floats, shape) for name, shape in shapes.items()]
    result = _value(RESULT, floats, (images, queries, len(layers.output_bias)))
    return write_out(_model(helper.make_graph(nodes, "module", inputs, [result], kept)))


def _model(graph: GraphProto) -> ModelProto:
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
    attach_bodies(model)
    return checked(model, graph.name)


def _value(name: str, dtype: "np.dtype[Any]", shape: Sequence[int]) -> Any:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), shape)
