"""Probabilities that do not come from a final Sigmoid. Needs onnx."""

import numpy as np
from onnx import ModelProto, helper

from irstd.compile.onnx_graph import add_constant, copy_of, fresh_name, rename_value

# The float32 neighbours of 0 and 1 that keep the logit finite, +-15.9.
LOWEST_PROBABILITY = 2.0**-23


def append_logit(model: ModelProto) -> ModelProto:
    """Let a graph that computes probabilities compute their logits instead.

    For graphs that end in something else than Sigmoid (a Softmax, a resize of probabilities);
    `strip_sigmoid` serves the others, exactly and for nothing.

    Pre: one float32 output in [0, 1], made by a node.
    Post: the output of the same name is `log(p / (1 - p))`, with p kept `LOWEST_PROBABILITY` away
    from 0 and 1.
    """
    copy = copy_of(model)
    output = copy.graph.output[0].name
    names = {part: fresh_name(copy, f"{output}_{part}") for part in ("p", "safe", "q", "odds")}
    rename_value(copy, output, names["p"])
    copy.graph.output[0].name = output
    low = add_constant(copy, f"{output}_low", np.float32(LOWEST_PROBABILITY))
    high = add_constant(copy, f"{output}_high", np.float32(1 - LOWEST_PROBABILITY))
    one = add_constant(copy, f"{output}_one", np.float32(1))
    copy.graph.node.extend(
        [
            helper.make_node("Clip", [names["p"], low, high], [names["safe"]], f"{output}_clip"),
            helper.make_node("Sub", [one, names["safe"]], [names["q"]], f"{output}_rest"),
            helper.make_node("Div", [names["safe"], names["q"]], [names["odds"]], f"{output}_div"),
            helper.make_node("Log", [names["odds"]], [output], f"{output}_log"),
        ]
    )
    return copy
