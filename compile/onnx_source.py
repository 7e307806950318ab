"""Any ONNX file as the source of a build. Needs onnx and onnxruntime."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import FunctionProto, GraphProto, ModelProto, TensorProto, inliner

from irstd.compile.export import INPUT, OUTPUT
from irstd.compile.graph_facts import pools_globally
from irstd.compile.onnx_graph import (
    STANDARD_DOMAINS,
    checked,
    dimensions,
    fresh_name,
    opset_of,
    rename_value,
)
from irstd.compile.operators.nodes import body_of, fused_nodes, is_fused
from irstd.compile.opset import (
    NEWEST_OPSET,
    OLDEST_OPSET,
    PLAIN_OPSET,
    convert_opset,
    set_ir_version,
)
from irstd.compile.rewrites.fix_shape import fix_shape
from irstd.errors import ExportError, one_line
from irstd.runtime.kernels.openvino_extension import DOMAIN

MAX_BYTES = (1 << 31) - 1  # protobuf's own limit for one message


@dataclasses.dataclass(frozen=True)
class OnnxSource:
    """A foreign graph that fits the interface of this SDK.

    Attributes:
        model: Input "image" (1, 1 or 3, H, W) and output "logits" (1, 1, H, W), float32, of fixed
            shape, opset 17 to 21, checked. "logits" holds probabilities if the last operator is a
            Sigmoid.
        size_hw: Height and width, px.
        pools_globally: Whether padding and tiling change the result.
    """

    model: ModelProto
    size_hw: tuple[int, int]
    pools_globally: bool


def load_onnx_source(path: Path, size_hw: tuple[int, int] | None = None) -> OnnxSource:
    """Read an ONNX file: one image in, one mask of its size out.

    Args:
        path: A single `.onnx` file below 2 GB.
        size_hw: Height and width, px, as given by `--imgsz`. Needed where the height, width or
            batch is symbolic.

    Raises:
        ExportError: The file is missing, damaged or split; it needs operators, an opset or an IR
            version beyond this SDK's; its input is no float32 image of 1 or 3 channels; its output
            is no mask of the input's size; or the size is symbolic and not given.
    """
    model = _parse(path)
    try:
        _check_header(model)
        model = checked(_inline_foreign(model), "reading", "export the network again")
        _drop_constant_inputs(model)
        size_hw = _check_interface(model, size_hw)
        _rename_interface(model)
        model = fix_shape(model, *size_hw)
        model = convert_opset(model, max(PLAIN_OPSET, opset_of(model)))
    except ExportError as error:
        raise ExportError(f"{path}: {error}") from error
    return OnnxSource(
        model=checked(set_ir_version(model), f"{path}"),
        size_hw=size_hw,
        pools_globally=pools_globally(model),
    )


def _parse(path: Path) -> ModelProto:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ExportError(
                f"{path}: {size / 1e9:.1f} GB; wanted one ONNX file below 2 GB, "
                "weights in float32 for one network"
            )
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ExportError(f"{path}: no such file; wanted an .onnx file") from error
    except OSError as error:
        raise ExportError(f"{path}: cannot be read ({error.strerror})") from error
    if not data:
        raise ExportError(f"{path}: the file is empty; wanted an ONNX model, copy it again")
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's DecodeError, which it offers without types
        raise ExportError(
            f"{path}: not an ONNX file, or damaged ({one_line(error)}); copy or export it again"
        ) from error
    if not model.ir_version or not model.graph.node:
        raise ExportError(f"{path}: not an ONNX model, or one without operators; export it again")
    return model


def _check_header(model: ModelProto) -> None:
    if model.ir_version > onnx.IR_VERSION:
        raise ExportError(
            f"IR version {model.ir_version} is newer than {onnx.IR_VERSION}, the newest that the "
            "installed onnx reads; export the network again, or upgrade onnx"
        )
    if not OLDEST_OPSET <= opset_of(model) <= NEWEST_OPSET:
        raise ExportError(
            f"opset {opset_of(model)}; wanted {OLDEST_OPSET} to {NEWEST_OPSET}, "
            f"export the network again with opset_version={PLAIN_OPSET}"
        )
    local = {(function.domain, function.name) for function in model.functions}
    for graph in _graphs(model):
        for node in graph.node:
            is_local = (node.domain, node.op_type) in local or is_fused(node)
            if node.domain not in STANDARD_DOMAINS and not is_local:
                raise ExportError(
                    f"operator {node.domain}.{node.op_type} is not a standard one; "
                    "export the network without custom operators"
                )
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in _tensors(model)):
        raise ExportError(
            "weights are in external files; wanted one file, "
            "made by onnx.save(onnx.load('in.onnx'), 'out.onnx')"
        )


def _inline_foreign(model: ModelProto) -> ModelProto:
    """Inline the functions of a file, but for fused operators that mean what they do here."""
    theirs = [body for body in model.functions if body.domain == DOMAIN]
    kept = [(body.domain, body.name) for body in theirs] if _are_ours(model, theirs) else []
    return inliner.inline_selected_functions(model, kept, exclude=True)


def _are_ours(model: ModelProto, bodies: list[FunctionProto]) -> bool:
    """Whether a file's bodies of fused operators are, byte for byte, what this SDK gives them."""
    try:
        ours = [body_of(node, opset_of(model)) for node in fused_nodes(model)]
    except ExportError:  # other operators of the same name
        return not bodies
    known = {body.SerializeToString(deterministic=True) for body in ours}
    return all(body.SerializeToString(deterministic=True) in known for body in bodies)


def _graphs(model: ModelProto) -> Iterator[GraphProto]:
    """Yield the graph and the bodies of its loops and branches."""
    pending = [model.graph]
    while pending:
        graph = pending.pop()
        yield graph
        for node in graph.node:
            pending.extend(item.g for item in node.attribute if item.HasField("g"))
            pending.extend(body for item in node.attribute for body in item.graphs)


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    for graph in _graphs(model):
        yield from graph.initializer
        for node in graph.node:
            for item in node.attribute:
                if item.HasField("t"):
                    yield item.t
                yield from item.tensors


def _drop_constant_inputs(model: ModelProto) -> None:
    """Old files list their initialisers as inputs, too."""
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in [value for value in model.graph.input if value.name in constants]:
        model.graph.input.remove(value)


def _check_interface(model: ModelProto, size_hw: tuple[int, int] | None) -> tuple[int, int]:
    graph = model.graph
    for what, values in (("input", graph.input), ("output", graph.output)):
        if len(values) != 1:
            names = ", ".join(value.name for value in values) or "none"
            raise ExportError(
                f"{len(values)} {what}s ({one_line(names)}); wanted one image input and one mask "
                "output, cut the graph with onnx.utils.extract_model"
            )
        kind = values[0].type.tensor_type.elem_type
        if kind != TensorProto.FLOAT:
            got = TensorProto.DataType.Name(kind) if kind else "no tensor"
            raise ExportError(
                f"{what} {values[0].name!r} is {got}; wanted FLOAT (float32), "
                "export the network in float32"
            )
    image = graph.input[0]
    shape = dimensions(image)
    if shape is None or len(shape) != 4:
        raise ExportError(f"input {image.name!r} has shape {_text(shape)}; wanted (N, C, H, W)")
    if shape[1] not in (1, 3):
        hint = ", NCHW instead of NHWC" if shape[3] in (1, 3) else ""
        raise ExportError(
            f"input {image.name!r} has shape {_text(shape)}; wanted (N, C, H, W) "
            f"with C fixed at 1 or 3{hint}"
        )
    if shape[0] not in (None, 1):
        raise ExportError(f"batch {shape[0]}; wanted batch 1, or a symbolic one")
    if size_hw is None:
        if None in (shape[0], *shape[2:]):
            raise ExportError(
                f"input {image.name!r} has symbolic shape {_text(shape)}; "
                "give the height and width with --imgsz HxW"
            )
        return shape[2] or 0, shape[3] or 0
    if any(got not in (None, want) for got, want in zip(shape[2:], size_hw, strict=True)):
        raise ExportError(
            f"the input is fixed at {shape[2]}x{shape[3]} px, got --imgsz "
            f"{size_hw[0]}x{size_hw[1]}; leave the flag out, or export with symbolic H and W"
        )
    return size_hw


def _text(shape: tuple[int | None, ...] | None) -> str:
    if shape is None:
        return "of unknown rank"
    return "(" + ", ".join("?" if side is None else str(side) for side in shape) + ")"


def _rename_interface(model: ModelProto) -> None:
    for value, name in ((model.graph.input[0], INPUT), (model.graph.output[0], OUTPUT)):
        if value.name != name:
            rename_value(model, name, fresh_name(model, f"{name}_inner"))
            rename_value(model, value.name, name)
