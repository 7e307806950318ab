"""What TensorRT's own Python does with a quickly deployable plugin, up to the engine.

Usage: quick.py NODE ATTRIBUTES [TYPE SHAPE]...   (JSON each; types as TensorRT names them)

The genuine bindings, over libraries that are empty: their classes parse the registration, make the
plugin and ask it for types, shapes and the kernel. Symbols of sizes, which only the real library
can make, are replaced by constants. Prints one JSON object.
"""

import importlib
import json
import sys
from typing import Any

import numpy as np
import tensorrt_bindings as trt

sys.modules["tensorrt"] = trt


class Constant:
    """A size that is known."""

    def __init__(self, value: int) -> None:
        self.value = value

    def is_constant(self) -> bool:
        return True

    def get_constant_value(self) -> int:
        return self.value


class Builder:
    def constant(self, value: int) -> Constant:
        return Constant(value)

    def operation(self, operation: Any, first: Constant, second: Constant) -> Constant:
        if operation == trt.DimensionOperation.PROD:
            return Constant(first.value * second.value)
        if operation == trt.DimensionOperation.SUM:
            return Constant(first.value + second.value)
        raise NotImplementedError(str(operation))


class Exprs(list[Any]):
    """DimsExprs, as far as the bindings' Python uses it."""

    def __init__(self, length: int) -> None:
        super().__init__([None] * length)


class Registry:
    """TensorRT's registry of plugins, empty at first."""

    def __init__(self) -> None:
        self.creators: dict[tuple[str, str], Any] = {}

    def register_creator(self, creator: Any, namespace: str) -> bool:
        self.creators[creator.name, namespace] = creator
        return True

    def get_creator(self, name: str, version: str, namespace: str) -> Any:
        return self.creators[name, namespace]


class Slots:
    """What TensorRT has a plugin write its launch and its arguments to."""

    def __init__(self) -> None:
        self.values: dict[int, int] = {}

    def __setitem__(self, position: int, argument: Any) -> None:
        self.values[position] = argument.value

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the plugin did not set {name}")


def main(name: str, attributes: dict[str, list[int]], *inputs: tuple[str, list[int]]) -> None:
    registry = Registry()
    trt.get_plugin_registry = lambda: registry
    plugin = importlib.import_module("tensorrt.plugin")
    tensor = importlib.import_module("tensorrt.plugin._tensor")
    trt.IDimensionExpr, trt.DimsExprs = Constant, Exprs
    # int32 arguments are told from others by their class, as the bindings do.
    tensor.SymInt32.__call__ = lambda self: Constant(self._expr.value)

    from irstd.runtime.kernels.tensorrt.quick import register
    from irstd.runtime.kernels.tensorrt.quick_nodes import quick_nodes

    node = {node.name: node for node in quick_nodes(multiprocessors=3)}[name]
    register(plugin, node)
    creator = registry.get_creator(name, "1", "irstd")
    # As the ONNX parser does: what the creator asks for, in its order.
    fields = [
        trt.PluginField(
            field.name, np.array(attributes[field.name], np.int32), trt.PluginFieldType.INT32
        )
        for field in creator.field_names
    ]
    made = creator.create_plugin(
        name, "irstd", trt.PluginFieldCollection(fields), trt.TensorRTPhase.BUILD,
        trt.QuickPluginCreationRequest.STRICT_AOT,
    )  # fmt: skip
    types = [trt.DataType.__members__[type_name] for type_name, _ in inputs]
    shapes = [shape for _, shape in inputs]
    outputs = made.get_output_data_types(types, [len(shape) for shape in shapes])
    sizes = [[Constant(size) for size in shape] for shape in shapes]
    (out_shape,) = made.get_output_shapes(sizes, [], Builder())
    descriptions = [
        described(kind, shape)
        for kind, shape in zip(
            [*types, *outputs], [*shapes, [size.value for size in out_shape]], strict=True
        )
    ]
    made.set_tactic(0)
    launch, integers = Slots(), Slots()
    made.get_launch_params(sizes, descriptions, len(shapes), launch, integers, Builder())
    kernel_name, ptx = made.get_kernel(
        [d.desc for d in descriptions[: len(shapes)]], [d.desc for d in descriptions[len(shapes) :]]
    )
    print(
        json.dumps(
            {
                "version": trt.__version__,
                "type": outputs[0].name,
                "shape": [size.value for size in out_shape],
                "kernel": kernel_name,
                "ptx": ptx.decode(),
                "grid": [launch.grid_x.value, launch.grid_y.value, launch.grid_z.value],
                "block": [launch.block_x.value, launch.block_y.value, launch.block_z.value],
                "shared_bytes": launch.shared_mem.value,
                "integers": [integers.values[i] for i in range(integers.nbSymExprs)],
            }
        )
    )


def described(kind: Any, shape: list[int]) -> Any:
    described = trt.DynamicPluginTensorDesc()
    described.desc.type, described.desc.dims = kind, trt.Dims(shape)
    described.desc.format = trt.TensorFormat.LINEAR
    described.min = described.max = described.opt = trt.Dims(shape)
    return described


if __name__ == "__main__":
    main(*(json.loads(word) for word in sys.argv[1:]))
