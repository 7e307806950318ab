"""Small surgery on ONNX graphs, shared by export, rewrites and precision. Needs onnx.

A pass never edits an initialiser in place, because several nodes may read it: it adds a new one and
lets `remove_dead_code` drop what nobody reads any more.
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from irstd.compile.operators.nodes import attach_bodies, check_inputs
from irstd.errors import ExportError, one_line

STANDARD_DOMAINS = ("", "ai.onnx")
CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")


def copy_of(model: ModelProto) -> ModelProto:
    """Return a deep copy, so that a pass leaves its argument alone."""
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def constants(model: ModelProto) -> dict[str, NDArray[Any]]:
    """Return the initialisers as arrays, by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def attributes(node: NodeProto) -> dict[str, Any]:
    """Return a node's attributes as Python values, by name."""
    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}


def producers(model: ModelProto) -> dict[str, NodeProto]:
    """Return the node that makes each value."""
    return {name: node for node in model.graph.node for name in node.output if name}


def consumers(model: ModelProto) -> dict[str, list[NodeProto]]:
    """Return the nodes that read each value, once per reading input."""
    found: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            if name:
                found.setdefault(name, []).append(node)
    return found


def output_names(model: ModelProto) -> set[str]:
    """Return the names of the graph's outputs."""
    return {value.name for value in model.graph.output}


def fresh_name(model: ModelProto, stem: str) -> str:
    """Return `stem`, numbered if the graph has a value of that name already."""
    graph = model.graph
    taken = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
    taken.update(name for node in graph.node for name in (*node.input, *node.output, node.name))
    name, number = stem, 1
    while name in taken:
        name, number = f"{stem}_{number}", number + 1
    return name


def add_constant(model: ModelProto, stem: str, array: NDArray[Any]) -> str:
    """Add an initialiser and return its name, which starts with `stem`."""
    name = fresh_name(model, stem)
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
    return name


def replace_uses(model: ModelProto, old: str, new: str) -> None:
    """Let every node that reads `old` read `new`; graph outputs keep their names."""
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new


def with_distinct_names(model: ModelProto) -> ModelProto:
    """Name every node, because plans and reports speak of nodes by name; files may leave it out."""
    copy = copy_of(model)
    taken: set[str] = set()
    for node in copy.graph.node:
        stem = node.name or f"{node.op_type}_{node.output[0]}"
        name, number = stem, 1
        while name in taken:
            name, number = f"{stem}_{number}", number + 1
        node.name = name
        taken.add(name)
    return copy


def rename_value(model: ModelProto, old: str, new: str) -> None:
    """Rename a value where it is made, where it is read, and in the graph's interface."""
    replace_uses(model, old, new)
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            if name == old:
                node.output[index] = new
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        if value.name == old:
            value.name = new
    for value in list(model.graph.value_info):
        if value.name in (old, new):  # the new name may have an entry of its own
            model.graph.value_info.remove(value)


def remove_nodes(model: ModelProto, unwanted: list[NodeProto]) -> None:
    """Remove nodes, which the caller has bypassed."""
    for node in unwanted:
        model.graph.node.remove(node)


def dimensions(value: onnx.ValueInfoProto) -> tuple[int | None, ...] | None:
    """Return the shape of a value: None for a symbolic side, None for an unknown rank."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim)


def known_shapes(model: ModelProto) -> dict[str, tuple[int | None, ...]]:
    """Return the shapes that a model states, by the name of the value; None for a symbolic side."""
    graph = model.graph
    shapes: dict[str, tuple[int | None, ...]] = {
        tensor.name: tuple(tensor.dims) for tensor in graph.initializer
    }
    for value in (*graph.input, *graph.output, *graph.value_info):
        shape = dimensions(value)
        if shape is not None:
            shapes[value.name] = shape
    return shapes


def opset_of(model: ModelProto) -> int:
    """Return the version of the standard operator set that the model imports, 0 if none."""
    versions = [item.version for item in model.opset_import if item.domain in STANDARD_DOMAINS]
    return max(versions, default=0)


def checked(model: ModelProto, stage: str, advice: str = "") -> ModelProto:
    """Return `model` with fresh shapes of all values, after onnx's full check.

    Fused nodes get the bodies that say what they mean.

    Raises:
        ExportError: The model breaks a rule of ONNX, or a fused node one of its operator; `stage`
            says after which step, `advice` what the user can do about it.
    """
    del model.graph.value_info[:]
    attach_bodies(model)
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        onnx.checker.check_model(inferred, full_check=True)
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        RuntimeError,
        ValueError,
        TypeError,
    ) as error:
        check_inputs(model, known_shapes(onnx.shape_inference.infer_shapes(model)))
        raise ExportError(
            f"{stage}: the graph is not sound ONNX ({one_line(error)}){advice and '; '}{advice}"
        ) from error
    check_inputs(inferred, known_shapes(inferred))
    return inferred
