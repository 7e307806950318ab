"""From one version of the standard operators to another. Needs onnx and onnxruntime."""

import numpy as np
import onnx
from onnx import ModelProto, version_converter

from irstd.compile.graph_facts import run_graph
from irstd.compile.onnx_graph import (
    STANDARD_DOMAINS,
    checked,
    copy_of,
    dimensions,
    opset_of,
)
from irstd.compile.operators.nodes import attach_bodies
from irstd.errors import ExportError, one_line

PLAIN_OPSET = 17  # what TensorRT 8.6 to 11, TensorRT-RTX, ONNX Runtime and OpenVINO all read
TYPED_OPSET = 19  # the first with FP16 scales and typed casts in Q/DQ
OLDEST_OPSET = 7  # ONNX Runtime runs none before it, so a conversion could not be checked
NEWEST_OPSET = 21
# Converted operators compute the same sums; only their order may differ.
_TOLERANCE = 1e-5


def convert_opset(model: ModelProto, version: int) -> ModelProto:
    """Return the graph in operators of another opset, proven to compute the same.

    Args:
        model: A graph of fixed shape with one image input and one output.
        version: The opset wanted.

    Raises:
        ExportError: onnx cannot convert an operator, or the converted graph computes another
            result for a random image.
    """
    current = opset_of(model)
    if current == version:
        return copy_of(model)
    try:
        converted = version_converter.convert_version(model, version)
    except Exception as error:  # converters report through several exception types
        raise ExportError(
            f"opset {current} cannot be converted to {version} ({one_line(error)}); "
            f"export the network again with opset_version={version}"
        ) from error
    converted = set_ir_version(checked(converted, f"conversion to opset {version}"))
    _check_same(model, converted, current, version)
    return converted


def to_opset19(model: ModelProto) -> ModelProto:
    """Return the graph in opset 19, which typed FP16 and INT8 graphs need; newer ones as they are.

    Raises:
        ExportError: As `convert_opset`.
    """
    return convert_opset(model, max(TYPED_OPSET, opset_of(model)))


def set_ir_version(model: ModelProto) -> ModelProto:
    """Give the model the oldest IR version that fits its opset, so that older engines read it."""
    copy = copy_of(model)
    standard = [item for item in copy.opset_import if item.domain in STANDARD_DOMAINS]
    copy.ir_version = onnx.helper.find_min_ir_version_for(standard, ignore_unknown=True)
    attach_bodies(copy)  # those of fused nodes need a newer one
    return copy


def _check_same(model: ModelProto, converted: ModelProto, current: int, version: int) -> None:
    shape = dimensions(model.graph.input[0])
    if shape is None or None in shape:
        raise ExportError(f"converting opset {current} needs a fixed shape, got {shape}")
    sides = [side for side in shape if side is not None]
    image = np.random.default_rng(0).normal(size=sides).astype(np.float32)
    before, after = run_graph(model, image), run_graph(converted, image)
    largest = float(np.abs(before[np.isfinite(before)]).max(initial=1.0))
    same = before.shape == after.shape and np.allclose(
        before, after, rtol=0, atol=_TOLERANCE * largest, equal_nan=True
    )
    if not same:
        raise ExportError(
            f"converting opset {current} to {version} changes what the graph computes; "
            f"export the network again with opset_version={version}"
        )
