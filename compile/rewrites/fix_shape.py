"""Fix the image's size. Needs onnx, and onnxruntime where inference cannot tell the shape."""

import numpy as np
import onnx
from onnx import ModelProto

from irstd.compile.graph_facts import run_graph
from irstd.compile.onnx_graph import checked, copy_of, dimensions
from irstd.errors import ExportError

_STRIDES_TRIED_PX = (2, 4, 8, 16, 32, 64, 128)


def fix_shape(model: ModelProto, height: int, width: int) -> ModelProto:
    """Set batch 1 and a fixed height and width, and derive every shape from them.

    Pre: one input (N, C, H, W) and one output; each side is symbolic or already as wanted.
    Post: the input is (1, C, height, width), the output (1, 1, height, width); the result is what
    an export at that size computes.

    Args:
        model: The graph.
        height: Of the input, px.
        width: Of the input, px.

    Raises:
        ExportError: The graph is fixed at another size, or its output at this size is not a mask
            of the input's size, most often because a side is no multiple of the network's stride.
    """
    if height < 1 or width < 1:
        raise ExportError(f"input size {height}x{width}: both sides must be above 0")
    try:
        return _fixed(model, height, width)
    except ExportError as error:
        for stride in _STRIDES_TRIED_PX:
            size = (-(-height // stride) * stride, -(-width // stride) * stride)
            # What fits by luck is no rule: 64 is a multiple of 2, and of the stride 16.
            if size != (height, width) and _fits(model, *size) and _fits(model, stride, 3 * stride):
                raise ExportError(
                    f"input size {height}x{width} does not fit the network; wanted sides that are "
                    f"multiples of {stride} px, for example --imgsz {size[0]}x{size[1]}"
                ) from error
        raise


def _fits(model: ModelProto, height: int, width: int) -> bool:
    try:
        _fixed(model, height, width)
    except ExportError:
        return False
    return True


def _fixed(model: ModelProto, height: int, width: int) -> ModelProto:
    copy = copy_of(model)
    image, mask = copy.graph.input[0], copy.graph.output[0]
    shape = dimensions(image)
    if shape is None or len(shape) != 4 or shape[1] is None:
        raise ExportError(f"input {image.name!r} has shape {shape}; wanted (N, C, H, W)")
    wanted = (1, shape[1], height, width)
    if any(got not in (None, side) for got, side in zip(shape, wanted, strict=True)):
        raise ExportError(f"the graph's input is fixed at {shape}, wanted {wanted}")
    for dim, side in zip(image.type.tensor_type.shape.dim, wanted, strict=True):
        dim.dim_value = side
    # What the file says of its output may be symbolic or of another size; it is derived anew.
    mask.type.tensor_type.ClearField("shape")
    inferred = checked(copy, f"input size {height}x{width}")
    _check_mask(inferred, wanted)
    return inferred


def _check_mask(model: ModelProto, image_shape: tuple[int, ...]) -> None:
    mask = model.graph.output[0]
    wanted = (1, 1, *image_shape[2:])
    got = dimensions(mask)
    if got is None or None in got:
        got = run_graph(model, np.zeros(image_shape, np.float32)).shape
    if got != wanted:
        raise ExportError(
            f"output {mask.name!r} is {got} for an input of {image_shape}; wanted a mask {wanted}"
        )
    mask.CopyFrom(
        onnx.helper.make_tensor_value_info(mask.name, mask.type.tensor_type.elem_type, wanted)
    )
