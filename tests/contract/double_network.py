"""Networks and the parser that fills them, of the double (double.py). Needs onnx."""

import dataclasses
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tests.contract.recorded import PLUGIN_NOT_FOUND, ParserError

if TYPE_CHECKING:
    from tests.contract.double import Double


class Network:
    """INetworkDefinition, which a parser fills."""

    def __init__(self, double: "Double", flags: int) -> None:
        self._double = double
        self._graph: dict[str, Any] | None = None
        self._model = b""
        self._layers: list[Any] = []
        self.flags = flags
        self.name = ""

    def _read(self, model: bytes) -> list[ParserError]:
        """Take over an ONNX graph: a layer a node, as strictly as the genuine parser types it."""
        import onnx

        read = onnx.load_model_from_string(model)
        self._graph, self._model, self.name = describe(read), model, read.graph.name
        cls = self._double.trt.ILayer
        made = [Layer(one["name"], one["operator"]) for one in self._graph["layers"]]
        self._layers = [self._double.of(cls, layer) for layer in made]
        return [
            dataclasses.replace(
                PLUGIN_NOT_FOUND, node=i, node_name=node.name, node_operator=node.op_type
            )
            for i, node in enumerate(read.graph.node)
            if node.domain and not self._knows(node, {one.name for one in read.functions})
        ]

    def _knows(self, node: Any, functions: set[str]) -> bool:
        """Whether a node is a function, or names a plugin as the parser looks for it."""
        import onnx

        told = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        found = told.get("plugin_namespace", b""), told.get("plugin_version", b"1")
        is_plugin = node.op_type in self._double.operators and found == (b"irstd", b"1")
        return node.op_type in functions or is_plugin

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    def get_layer(self, index: int) -> Any:
        return self._layers[index]

    def _is_strongly_typed(self) -> bool:
        flag = self._double.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        is_only_kind = self._double.trt.__version__.startswith("11.")
        return is_only_kind or bool(self.flags & 1 << int(flag))


class Layer:
    """ILayer, as far as it is asked for its name."""

    def __init__(self, name: str, operator: str) -> None:
        self.name = name
        self._operator = operator


def describe(model: Any) -> dict[str, Any]:
    """Return layers, inputs and outputs of an ONNX model as JSON can hold them."""
    import onnx

    constants = {one.name for one in model.graph.initializer}

    def tensors(values: Any) -> dict[str, Any]:
        return {
            value.name: {
                "shape": [one.dim_value for one in value.type.tensor_type.shape.dim],
                "type": onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type),
            }
            for value in values
            if value.name not in constants
        }

    return {
        "layers": [
            {"name": node.name or f"node_{i}", "operator": node.op_type}
            for i, node in enumerate(model.graph.node)
        ],
        "inputs": tensors(model.graph.input),
        "outputs": tensors(model.graph.output),
    }


class Parser:
    """OnnxParser: reads what onnx reads, and refuses what the script says."""

    def __init__(self, double: "Double", network: Any, logger: Any) -> None:
        self._double, self._network, self._logger = double, double.behind(network), logger
        self._errors: list[Any] = []

    def parse(self, model: bytes, path: str | None = None) -> bool:
        errors = list(self._double.script.parser_errors)
        if not errors:
            try:
                errors = self._network._read(bytes(model))
            except Exception as error:  # whatever protobuf raises in its version
                errors = [ParserError("MODEL_DESERIALIZE_FAILED", f"Failed to parse: {error!r}")]
        cls = self._double.trt.ParserError
        self._errors = [self._double.of(cls, Refusal(self._double.trt, one)) for one in errors]
        lines = [("ERROR", f"ModelImporter.cpp: ERROR: {one.desc}") for one in errors]
        self._double.say(self._logger, lines)
        return not errors

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._errors[index]


class Refusal:
    """ParserError of TensorRT."""

    def __init__(self, trt: ModuleType, error: ParserError) -> None:
        self._trt, self._error = trt, error

    def code(self) -> Any:
        return self._trt.ErrorCode.__members__[self._error.code]

    def desc(self) -> str:
        return self._error.desc

    def node(self) -> int:
        return self._error.node

    def node_name(self) -> str:
        return self._error.node_name

    def node_operator(self) -> str:
        return self._error.node_operator
