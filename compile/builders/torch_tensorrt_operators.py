"""Torch-TensorRT converters of the fused operators: each becomes plugins of one kernel.

The plugins are those of `irstd.runtime.kernels.tensorrt.quick`, ahead of time: their kernels are
PTX inside the plan, which needs no library where it runs. Torch-TensorRT generates converters for
such plugins itself, but those of 2.13 refuse attributes that are lists, and one torch operator
would be one plugin (docs/adr/0010-torch-tensorrt.md). Needs torch, tensorrt and torch_tensorrt.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from irstd.compile.operators.torch_ops import register
from irstd.errors import BuildError
from irstd.runtime.kernels.openvino_extension import DOMAIN
from irstd.runtime.kernels.tensorrt import quick
from irstd.runtime.kernels.tensorrt.quick_nodes import MOST_LOW_PX, quick_nodes

# (plugin, inputs, attributes) -> output; adds one layer to the network.
Add = Callable[..., Any]


def register_plugins(plugin: ModuleType, multiprocessors: int) -> None:
    """Register the plugins with TensorRT, once in a process.

    Args:
        plugin: The module `tensorrt.plugin`.
        multiprocessors: Of the GPU that the plan is for.

    Raises:
        UsageError: That TensorRT is too old for them.
    """
    _register_plugins(plugin, multiprocessors)


def register_converters(torch_tensorrt: ModuleType, torch: ModuleType, plugin: ModuleType) -> None:
    """Register a converter for each custom operator, once in a process.

    Args:
        torch_tensorrt: The module.
        torch: The module.
        plugin: The module `tensorrt.plugin`, with the plugins registered.
    """
    _register_converters(torch_tensorrt, torch, plugin)


@functools.cache
def _register_plugins(plugin: ModuleType, multiprocessors: int) -> None:
    for node in quick_nodes(multiprocessors):
        quick.register(plugin, node, lazy=False)


@functools.cache
def _register_converters(torch_tensorrt: ModuleType, torch: ModuleType, plugin: ModuleType) -> None:
    register()
    conversion = torch_tensorrt.dynamo.conversion
    for operator, expand in EXPANSIONS.items():
        overload = getattr(getattr(torch.ops, DOMAIN), operator).default
        conversion.dynamo_tensorrt_converter(overload, supports_dynamic_shapes=False)(
            make_converter(operator, expand, conversion.converter_utils.get_trt_tensor, plugin)
        )


def make_converter(
    operator: str,
    expand: Callable[..., Any],
    get_trt_tensor: Callable[..., Any],
    plugin: ModuleType,
) -> Callable[..., Any]:
    """Return a converter as Torch-TensorRT calls it: (ctx, target, args, kwargs, name) -> ITensor.

    Args:
        operator: Key of torch_ops.SCHEMAS.
        expand: From (add, *inputs) to the output, `add` adding one plugin.
        get_trt_tensor: Torch-TensorRT's: (ctx, value, name) -> ITensor.
        plugin: The module `tensorrt.plugin`.
    """

    def convert(
        ctx: Any, target: Any, args: Sequence[Any], kwargs: Mapping[str, Any], name: str
    ) -> Any:
        del target
        if kwargs:
            raise BuildError(
                f"{operator}: inputs by name ({', '.join(kwargs)}); wanted by position"
            )

        def add(node: str, *inputs: Any, **attributes: Sequence[int]) -> Any:
            tensors = [
                get_trt_tensor(ctx, value, f"{name}_{node}_{position}")
                for position, value in enumerate(inputs)
            ]
            made = getattr(getattr(plugin.op, DOMAIN), node)(
                *tensors, **{key: np.asarray(value, np.int32) for key, value in attributes.items()}
            )
            layer = ctx.net.add_plugin(made, aot=True)
            if layer is None:
                raise BuildError(f"{operator} {name}: TensorRT does not take the plugin {node}")
            layer.name = f"{DOMAIN}.{node} {name}"
            return layer.get_output(0)

        return expand(add, *args)

    return convert


def _haar_gate(add: Add, x: Any, weight: Any, bias: Any) -> Any:
    return add("HaarGate", x, weight, bias)


def _spectral_split(
    add: Add, x: Any, cutoff: Any, gate_weight: Any, gate_bias: Any, gamma: Any
) -> Any:
    height, width = tuple(x.shape)[2:]
    if height * width <= MOST_LOW_PX:
        low = add("SpectralSplitLow", x, cutoff)
    else:
        filtered = add("SpectralSplitColumns", add("SpectralSplitRows", x), cutoff)
        low = add("SpectralSplitRowsBack", x, filtered)
    return add("SpectralSplitGate", x, low, gate_weight, gate_bias, gamma)


def _ms_deform_attn(
    add: Add,
    value: Any,
    offsets: Any,
    logits: Any,
    reference_points: Any,
    level_hw: Sequence[int],
    query_hw: Sequence[int],
) -> Any:
    depth = [tuple(value.shape)[3]]
    records = add("MSDeformAttnRecords", value, level_hw=level_hw, d_head=depth)
    if reference_points is None:
        return add(
            "MSDeformAttnGather", records, offsets, logits,
            level_hw=level_hw, query_hw=query_hw, d_head=depth,
        )  # fmt: skip
    return add(
        "MSDeformAttnGatherAt", records, offsets, logits, reference_points,
        level_hw=level_hw, d_head=depth,
    )  # fmt: skip


EXPANSIONS: dict[str, Callable[..., Any]] = {
    "HaarGate": _haar_gate,
    "SpectralSplit": _spectral_split,
    "MSDeformAttn": _ms_deform_attn,
}
