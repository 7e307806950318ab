"""Quickly deployable plugins for TensorRT 10.9 and later: kernels as PTX inside the engine.

TensorRT takes one kernel a node, whole numbers between the pointers of the inputs and those of the
outputs, and no other argument. So an operator of several kernels is several nodes, and what else a
kernel must know is compiled into it. All shapes are static: a change of shape would load the
kernels anew (NVIDIA/TensorRT#4849).

An engine with such plugins needs no library where it runs. The module `tensorrt.plugin` is handed
in: `irstd.runtime` never imports TensorRT.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from irstd.errors import BuildError, UsageError
from irstd.runtime.kernels.cuda.launch import Launch

NAMESPACE = "irstd"
# What a node of domain "irstd" carries for TensorRT's ONNX parser to take these plugins.
NODE_ATTRIBUTES: dict[str, str | int] = {
    "plugin_namespace": NAMESPACE,
    "plugin_version": "1",
    "aot": 1,
}
STATIC_SHARED_BYTES = 48 * 1024  # nobody asks the driver for more than this on a plugin's behalf

Shape = tuple[int, ...]
Attributes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Kernel:
    """A launch as TensorRT puts it into an engine.

    Attributes:
        name: Of the kernel in `ptx`.
        ptx: Text.
        launch: Grid, block and dynamic shared memory.
        integers: int32 arguments, between the pointers of the inputs and of the output.
    """

    name: str
    ptx: str
    launch: Launch
    integers: tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """A plugin: one kernel.

    Attributes:
        name: op_type of the ONNX node.
        inputs: Names of the inputs.
        attributes: Names of the attributes, each a list of whole numbers.
        output_shape: From the shapes of the inputs and the attributes; sizes may be symbols of
            TensorRT, which know `*` and `+`. None: that of the first input. The output has the
            first input's type.
        kernel: From the shapes, whether the first input is half (else float32), and the attributes.
    """

    name: str
    inputs: tuple[str, ...]
    attributes: tuple[str, ...]
    output_shape: Callable[[Sequence[Sequence[Any]], Attributes], tuple[Any, ...]] | None
    kernel: Callable[[Sequence[Shape], bool, Attributes], Kernel]


def register(plugin: Any, node: Node, *, lazy: bool = False) -> None:
    """Register a node with TensorRT, with what it needs to build an engine of it.

    Args:
        plugin: The module `tensorrt.plugin`, of TensorRT 10.9 or later.
        node: What to register. A name can be registered once in a process.
        lazy: Not with TensorRT's registry, which its ONNX parser asks, but only as
            `plugin.op.irstd.<name>`.

    Raises:
        UsageError: That TensorRT is too old, or has the name already.
    """
    if not hasattr(plugin, "aot_impl"):
        raise UsageError("tensorrt.plugin knows no aot_impl; wanted TensorRT 10.9 or later")
    name = f"{NAMESPACE}::{node.name}"
    describe, implement = _describe(plugin, node), _implement(plugin, node)
    try:
        plugin.register(name, lazy_register=lazy)(describe)
        plugin.aot_impl(name)(implement)
    except ValueError as error:
        raise UsageError(f"{name}: TensorRT does not take it: {error}") from error


def _describe(plugin: Any, node: Node) -> Callable[..., Any]:
    """Return the function that tells TensorRT the output's shape and type."""

    def describe(*arguments: Any, **named: Any) -> Any:
        tensors, attributes = _split(node, arguments, named)
        if node.output_shape is None:
            return tensors[0].like()
        shapes = [list(tensor.shape_expr) for tensor in tensors]
        return plugin.from_shape_expr(node.output_shape(shapes, attributes), tensors[0].dtype)

    parameters = _parameters(plugin, node)
    return _with_signature(
        describe, inspect.Signature(parameters, return_annotation=plugin.TensorDesc)
    )


def _implement(plugin: Any, node: Node) -> Callable[..., Any]:
    """Return the function that gives TensorRT the kernel."""

    def implement(*arguments: Any, **named: Any) -> Any:
        tensors, attributes = _split(node, arguments, named)
        shapes = [_static_shape(node, tensor) for tensor in tensors]
        kernel = node.kernel(shapes, _is_half(node, tensors[0]), attributes)
        if kernel.launch.shared_bytes > STATIC_SHARED_BYTES:
            raise BuildError(
                f"{node.name}: {kernel.launch.shared_bytes} bytes of shared memory; a plugin in an "
                f"engine may use {STATIC_SHARED_BYTES}"
            )
        launch = plugin.KernelLaunchParams(*kernel.launch.grid, *kernel.launch.block)
        launch.shared_mem = kernel.launch.shared_bytes
        integers = plugin.SymIntExprs(len(kernel.integers))
        for position, value in enumerate(kernel.integers):
            integers[position] = plugin.SymInt32(value)
        return kernel.name, kernel.ptx, launch, integers

    any_kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [
        *_parameters(plugin, node),
        inspect.Parameter("outputs", any_kind, annotation=tuple[plugin.TensorDesc]),
        inspect.Parameter("tactic", any_kind, annotation=int),
    ]
    returned = tuple[str, str, plugin.KernelLaunchParams, plugin.SymIntExprs]
    return _with_signature(implement, inspect.Signature(parameters, return_annotation=returned))


def _parameters(plugin: Any, node: Node) -> list[inspect.Parameter]:
    any_kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return [
        inspect.Parameter(name, any_kind, annotation=plugin.TensorDesc) for name in node.inputs
    ] + [
        inspect.Parameter(name, any_kind, annotation=npt.NDArray[np.int32])
        for name in node.attributes
    ]


def _with_signature(
    function: Callable[..., Any], signature: inspect.Signature
) -> Callable[..., Any]:
    """Return the function with the parameters that TensorRT reads off it."""
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


def _split(
    node: Node, arguments: Sequence[Any], named: Mapping[str, Any]
) -> tuple[Sequence[Any], Attributes]:
    """Return tensors and attributes of a call by TensorRT, which names attributes or not."""
    tensors = arguments[: len(node.inputs)]
    values = dict(zip(node.attributes, arguments[len(node.inputs) :], strict=False))
    values |= {name: value for name, value in named.items() if name in node.attributes}
    return tensors, {name: [int(v) for v in value] for name, value in values.items()}


def _static_shape(node: Node, tensor: Any) -> Shape:
    if not all(size.is_constant for size in tensor.shape_expr):
        raise BuildError(f"{node.name}: a shape is not static; build with fixed shapes")
    return tuple(int(size.constant_value()) for size in tensor.shape_expr)


def _is_half(node: Node, tensor: Any) -> bool:
    name = tensor.dtype.name
    if name not in ("HALF", "FLOAT"):
        raise BuildError(f"{node.name}: got {name}; wanted FLOAT or HALF")
    return bool(name == "HALF")
