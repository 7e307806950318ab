"""A graph of one operator, for tests and benchmarks. Needs onnx."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from irstd.compile.fused import write_out
from irstd.compile.onnx_graph import checked
from irstd.compile.operators.nodes import DOMAIN_VERSION, attach_bodies
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
    graph = helper.make_graph(
        [node], operator, inputs, [_value(RESULT, np.dtype(np.float32), shape)], kept
    )
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
    attach_bodies(model)
    return checked(model, operator)


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


def _value(name: str, dtype: "np.dtype[Any]", shape: Sequence[int]) -> Any:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), shape)
