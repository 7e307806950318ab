"""Probabilities back to logits. Needs onnx."""

from onnx import ModelProto

from irstd.compile.onnx_graph import (
    consumers,
    copy_of,
    output_names,
    producers,
    remove_nodes,
    rename_value,
)


def strip_sigmoid(model: ModelProto) -> tuple[ModelProto, bool]:
    """Remove the Sigmoid that a graph ends in.

    The runtime compares logits with the threshold's logit and computes probabilities on demand.

    Pre: one output; no Identity before it (`remove_dead_code`).
    Post: the graph does not end in Sigmoid; `sigmoid(result)` equals what it computed before. The
    output keeps its name.

    Returns:
        The graph, and whether there was a Sigmoid to remove.
    """
    copy = copy_of(model)
    output = copy.graph.output[0].name
    last = producers(copy).get(output)
    if last is None or last.op_type != "Sigmoid":
        return copy, False
    source = last.input[0]
    if source not in producers(copy) or source in output_names(copy) or output in consumers(copy):
        return copy, False
    remove_nodes(copy, [last])
    rename_value(copy, source, output)
    return copy, True
