"""Drop what does not change the result. Needs onnx."""

from onnx import ModelProto, NodeProto, numpy_helper

from irstd.compile.onnx_graph import (
    attributes,
    constants,
    copy_of,
    output_names,
    producers,
    remove_nodes,
    rename_value,
    replace_uses,
)

_PASS_THROUGH = ("Identity", "Dropout")  # Dropout does nothing in a graph without training_mode


def remove_dead_code(model: ModelProto) -> ModelProto:
    """Remove nodes and initialisers that nothing reads, and nodes that copy their input.

    Pre: no control flow (`simplify` refuses it).
    Post: same outputs, bit for bit. Every constant is an initialiser that some node reads; no
    Constant, Identity or Dropout node is left, except an Identity from the input or from a constant
    straight to an output; no initialiser is a graph input.
    """
    copy = copy_of(model)
    _constants_to_initialisers(copy)
    for node in list(copy.graph.node):
        if _copies_its_input(node, copy):
            _bypass(copy, node)
    _drop_unread(copy)
    return copy


def _constants_to_initialisers(model: ModelProto) -> None:
    found = []
    for node in model.graph.node:
        value = attributes(node).get("value") if node.op_type == "Constant" else None
        if value is not None and node.output[0] not in output_names(model):
            tensor = numpy_helper.from_array(numpy_helper.to_array(value), node.output[0])
            model.graph.initializer.append(tensor)
            found.append(node)
    remove_nodes(model, found)


def _copies_its_input(node: NodeProto, model: ModelProto) -> bool:
    if node.op_type not in _PASS_THROUGH:
        return False
    trains = len(node.input) > 2 and node.input[2]
    return not (trains and bool(constants(model).get(node.input[2], True)))


def _bypass(model: ModelProto, node: NodeProto) -> None:
    source, copied = node.input[0], node.output[0]
    outputs = output_names(model)
    if copied not in outputs:
        remove_nodes(model, [node])
        replace_uses(model, copied, source)
    elif source in producers(model) and source not in outputs:
        # The copy is a graph output, whose name is part of the interface: its source takes it.
        remove_nodes(model, [node])
        rename_value(model, source, copied)


def _drop_unread(model: ModelProto) -> None:
    graph = model.graph
    wanted = output_names(model)
    dead = []
    for node in reversed(graph.node):  # nodes are in topological order
        if wanted.isdisjoint(name for name in node.output if name):
            dead.append(node)
        else:
            wanted.update(name for name in node.input if name)
    remove_nodes(model, dead)
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in wanted:
            del graph.initializer[index]
    constant_names = {tensor.name for tensor in graph.initializer}
    for index in reversed(range(len(graph.input))):
        if graph.input[index].name in constant_names:
            del graph.input[index]
