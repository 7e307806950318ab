"""From a torch module to an ONNX graph of standard operators and fused ones.

Needs onnx, and torch when it is called.
"""

import io
import warnings
from typing import TYPE_CHECKING

import onnx
from onnx import ModelProto

from irstd.compile.onnx_graph import checked
from irstd.compile.operators.nodes import fused_nodes
from irstd.errors import ExportError, MissingDependency, one_line

if TYPE_CHECKING:
    from torch import nn

OPSET = 17
INPUT, OUTPUT = "image", "logits"
# The size that is traced when height and width stay symbolic; no side may equal a channel count
# or the batch, so that nothing in the trace can mistake one for the other.
_TRACE_HW = (96, 160)


def export(
    module: "nn.Module", channels: int, *, size_hw: tuple[int, int] | None = None
) -> ModelProto:
    """Trace a network into standard ONNX operators of opset 17, and fused operators with bodies.

    The graph computes what `module` computes in eval mode; the module itself is left as it was.

    Args:
        module: Maps (1, channels, H, W) float32 to (1, 1, H, W) float32 logits.
        channels: Of the image, 1 or 3.
        size_hw: Fixed height and width, px, for a network that cannot be symbolic; None leaves
            both symbolic ("H", "W").

    Returns:
        A checked model with input "image" (1, channels, H, W) and output "logits" (1, 1, H, W),
        both float32.

    Raises:
        MissingDependency: torch is not installed.
        ExportError: An operator has no ONNX form or needs a fixed size, or the result is not a mask
            of the input's size.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingDependency(
            "exporting a torch network needs torch: pip install 'irstd-sdk[train]'"
        ) from error
    height, width = size_hw or _TRACE_HW
    first = next(module.parameters(), torch.zeros(0))
    image = torch.zeros(1, channels, height, width, device=first.device)
    symbolic = {} if size_hw else {name: {2: "H", 3: "W"} for name in (INPUT, OUTPUT)}
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # The tracing exporter is deprecated, and warns of every size check in the module; it
            # is used because its graphs keep one node per layer and need no further packages.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                (image,),
                buffer,  # type: ignore[arg-type]  # the tracing exporter writes to buffers too
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes=symbolic,
                opset_version=OPSET,
                training=torch.onnx.TrainingMode.EVAL,
                dynamo=False,
            )
    except Exception as error:  # torch reports an unsupported module with many exception types
        name = type(module).__name__
        raise ExportError(
            f"{name}: torch cannot export it to ONNX opset {OPSET} ({one_line(error)})"
        ) from error
    model = onnx.load_model_from_string(buffer.getvalue())
    _check_interface(model, type(module).__name__, channels)
    attends = any(node.op_type == "MSDeformAttn" for node in fused_nodes(model))
    if attends and size_hw is None:
        raise ExportError(
            f"{type(module).__name__}: MSDeformAttn holds the sizes of its maps; "
            "export with a fixed height and width"
        )
    return checked(model, f"export of {type(module).__name__}")


def _check_interface(model: ModelProto, name: str, channels: int) -> None:
    inputs = [value.name for value in model.graph.input]
    outputs = [value.name for value in model.graph.output]
    if inputs != [INPUT] or outputs != [OUTPUT]:
        raise ExportError(
            f"{name}: takes {len(inputs)} and returns {len(outputs)} tensors; "
            f"wanted one image of {channels} channels and one map of logits"
        )
