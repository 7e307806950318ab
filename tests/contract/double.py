"""TensorRT as a double that behaves: reads graphs, returns plans, and fails as it is told to.

Made of the genuine classes of one version (strict.py), so that whatever builder and session call is
held against that version, and driven by a Script, so that every failure can be had without a GPU:

    module = tensorrt_double(trt, Script(build_log=OUT_OF_MEMORY, builds=False))
    builder = module.Builder(logger)          # everything else in `module` is genuine

Each class below is the behaviour behind one class of TensorRT; `Runtime` gives engines that can be
inspected. To run one, hand in another class: tensorrt_double(trt, script, engine=...).

A plan of the double is MAGIC, a line of JSON (what it was built from and how) and the graph itself;
one without weights lacks that, and its engine computes nothing until it is refitted.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from tests.contract.double_config import Config, HostMemory
from tests.contract.double_network import Network, Parser, Refusal
from tests.contract.recorded import BAD_MAGIC, OTHER_VERSION, Lines, ParserError
from tests.contract.strict import check_call, strict

MAGIC = b"double of a plan\n"


@dataclasses.dataclass(frozen=True)
class Script:
    """How the double behaves; the default is that everything works.

    Attributes:
        makes_builder: Else Builder raises what the bindings raise.
        makes_network, makes_runtime: Likewise.
        start_log: Said when a builder or a runtime is made, as (severity, text) pairs.
        parser_errors: The parser refuses with these.
        build_log: Said while building.
        builds: Else there is no plan.
        steps: Of the one phase within the build.
        at_step: Called with the number of each step, on the thread that builds.
        dla_cores: Of the device.
        dla_refuses: Operators that DLA does not run.
        deserializes: Else there is no engine.
        deserialize_log: Said then.
        libraries: The operator of each plugin library that loads, by its path; others do not.
        refits: A graph's weights fit into the engine's memory.
        lacking_weights: What a graph does not give to an engine that has none.
    """

    makes_builder: bool = True
    makes_network: bool = True
    makes_runtime: bool = True
    start_log: Lines = ()
    parser_errors: Sequence[ParserError] = ()
    build_log: Lines = ()
    builds: bool = True
    steps: int = 3
    at_step: Callable[[int], None] = lambda step: None
    dla_cores: int = 0
    dla_refuses: Sequence[str] = ("Resize",)
    deserializes: bool = True
    deserialize_log: Lines = (("ERROR", OTHER_VERSION),)
    libraries: Mapping[str, str] = dataclasses.field(default_factory=dict)
    refits: bool = True
    lacking_weights: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a plan of the double holds."""

    facts: Mapping[str, Any]
    model: bytes

    def to_bytes(self) -> bytes:
        return MAGIC + json.dumps(self.facts, sort_keys=True).encode() + b"\n" + self.model

    @staticmethod
    def from_bytes(data: bytes) -> "Plan":
        """Read a plan; ValueError for anything else."""
        if not data.startswith(MAGIC):
            raise ValueError("no plan of the double")
        line, _, model = data[len(MAGIC) :].partition(b"\n")
        return Plan(json.loads(line), model)


class Double:
    """What all behaviours share: the genuine module, the script and the logger.

    Attributes:
        record: Every behaviour made, by the name of its class, in order.
        operators: Whose plugin libraries were loaded.
    """

    def __init__(self, trt: ModuleType, script: Script, engine: type["Engine"]) -> None:
        self.trt, self.script, self.engine = trt, script, engine
        self.record: dict[str, list[Any]] = {}
        self.operators: set[str] = set()
        self._behaviours: dict[int, Any] = {}

    def of(self, cls: type, behaviour: Any) -> Any:
        """Return a strict double of a class with a behaviour, which is remembered."""
        double = strict(self.trt, cls, behaviour)
        self.record.setdefault(cls.__name__, []).append(behaviour)
        self._behaviours[id(double)] = (double, behaviour)
        return double

    def behind(self, double: Any) -> Any:
        """Return the behaviour of a double."""
        return self._behaviours[id(double)][1]

    def say(self, logger: Any, lines: Lines) -> None:
        """Write lines to a logger as TensorRT does."""
        for severity, text in lines:
            logger.log(getattr(self.trt.ILogger, severity), text)


def tensorrt_double(
    trt: ModuleType, script: Script | None = None, engine: type["Engine"] | None = None
) -> ModuleType:
    """Return a module that is `tensorrt` but for what makes builders, parsers and runtimes.

    Args:
        trt: The genuine bindings.
        script: How it behaves; None: all is well.
        engine: What its runtime gives; None: engines that can be inspected only.

    Returns:
        The module; `module.double` is the Double behind it.
    """
    double = Double(trt, script or Script(), engine or Engine)
    module = ModuleType("tensorrt")
    module.__dict__.update(vars(trt))

    def factory(cls: type, make: Callable[..., Any], allowed: bool = True) -> Any:
        def create(*args: Any, **kwargs: Any) -> Any:
            check_call(trt, cls.__name__, cls.__init__.__doc__, args, kwargs)  # type: ignore[misc]
            if not allowed:
                double.say(args[0], double.script.start_log)
                raise TypeError("pybind11::init(): factory function returned nullptr")
            return double.of(cls, make(double, *args, **kwargs))

        return create

    module.__dict__.update(
        double=double,
        Builder=factory(trt.Builder, Builder, double.script.makes_builder),
        OnnxParser=factory(trt.OnnxParser, Parser),
        Runtime=factory(trt.Runtime, Runtime, double.script.makes_runtime),
        Refitter=factory(trt.Refitter, Refitter),
        OnnxParserRefitter=factory(trt.OnnxParserRefitter, ParserRefitter),
        get_plugin_registry=lambda: double.of(trt.IPluginRegistry, Registry(double)),
        init_libnvinfer_plugins=lambda logger, namespace: True,
    )
    return module


def name_of(member: Any) -> str:
    """Return the name of an enumeration's member; where two have one value, not a former name."""
    names = [name for name, other in type(member).__members__.items() if other == member]
    return next(name for name in names if name != "WEIGHTLESS")


class Registry:
    """IPluginRegistry: the libraries of the script load, and what registers is remembered."""

    def __init__(self, double: Double) -> None:
        self._double = double
        self._loaded: list[str] = []
        self._creators: dict[tuple[str, str], Any] = {}

    def load_library(self, plugin_path: str) -> object:
        if plugin_path not in self._double.script.libraries:
            return None
        self._loaded.append(plugin_path)
        self._double.operators.add(self._double.script.libraries[plugin_path])
        return object()

    def register_creator(self, creator: Any, plugin_namespace: str = "") -> bool:
        self._creators[plugin_namespace, creator.name] = creator
        return True

    def get_creator(self, type: str, version: str, plugin_namespace: str = "") -> Any:
        return self._creators.get((plugin_namespace, type))


class Builder:
    """Builder of networks, configurations and plans."""

    def __init__(self, double: Double, logger: Any) -> None:
        self._double, self._logger = double, logger
        self.num_DLA_cores = double.script.dla_cores
        self.max_DLA_batch_size = 4096
        double.say(logger, double.script.start_log)

    def create_network(self, flags: int = 0) -> Any:
        if not self._double.script.makes_network:
            return None
        known = self._double.trt.NetworkDefinitionCreationFlag.__members__.values()
        assert flags & ~sum(1 << int(flag) for flag in known) == 0, f"unknown flags {flags:#x}"
        return self._double.of(self._double.trt.INetworkDefinition, Network(self._double, flags))

    def create_builder_config(self) -> Any:
        return self._double.of(self._double.trt.IBuilderConfig, Config(self._double))

    def get_plugin_registry(self) -> Any:
        return self._double.of(self._double.trt.IPluginRegistry, Registry(self._double))

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        double, script = self._double, self._double.script
        network, config = double.behind(network), double.behind(config)
        assert network._graph, "the parser has read nothing into this network"
        if not self._report_progress(config):
            double.say(self._logger, [("ERROR", "Error Code 10: Internal Error (cancelled)")])
            return None
        double.say(self._logger, script.build_log)
        if not script.builds:
            return None
        config._remember_timings()
        facts = {
            **network._graph,
            "version": double.trt.__version__,
            "strongly_typed": network._is_strongly_typed(),
            "flags": sorted(name_of(flag) for flag in config._flags),
            "level": config.builder_optimization_level,
            "dla_core": config.DLA_core,
            "model_sha256": hashlib.sha256(network._model).hexdigest(),
        }
        is_stripped = double.trt.BuilderFlag.STRIP_PLAN in config._flags
        plan = Plan(facts, b"" if is_stripped else network._model).to_bytes()
        return double.of(double.trt.IHostMemory, HostMemory(plan))

    def _report_progress(self, config: "Config") -> bool:
        """Call the monitor as TensorRT does; False where it cancels."""
        monitor, steps = config.progress_monitor, self._double.script.steps
        if monitor is None:
            return True
        monitor.phase_start("Building Engine", None, 1)
        monitor.phase_start("Tactic Selection", "Building Engine", steps)
        for step in range(steps):
            self._double.script.at_step(step)
            if not monitor.step_complete("Tactic Selection", step):
                return False
        monitor.phase_finish("Tactic Selection")
        monitor.step_complete("Building Engine", 0)
        monitor.phase_finish("Building Engine")
        return True


class Runtime:
    """Runtime: what makes engines of plans."""

    def __init__(self, double: Double, logger: Any) -> None:
        self._double, self._logger = double, logger
        self.engine_host_code_allowed = False
        self.DLA_core = -1
        double.say(logger, double.script.start_log)

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        trt = self._double.trt
        try:
            plan = Plan.from_bytes(bytes(serialized_engine))
        except ValueError:
            self._double.say(self._logger, [("ERROR", BAD_MAGIC)])
            return None
        if plan.facts["version"] != trt.__version__ or not self._double.script.deserializes:
            self._double.say(self._logger, self._double.script.deserialize_log)
            return None
        assert self.DLA_core == plan.facts.get("dla_core", -1), "the plan is of another DLA core"
        return self._double.of(trt.ICudaEngine, self._double.engine(self._double, plan))


class Engine:
    """ICudaEngine that can be inspected."""

    def __init__(self, double: Double, plan: Plan) -> None:
        self._double, self._plan = double, plan
        self._graph = plan.model  # what it computes; empty while it has no weights
        self.refittable = "STRIP_PLAN" in plan.facts.get("flags", ())

    def create_engine_inspector(self) -> Any:
        inspector = Inspector(self._double, self._plan)
        return self._double.of(self._double.trt.EngineInspector, inspector)


class Refitter:
    """Refitter: puts weights into an engine."""

    def __init__(self, double: Double, engine: Any, logger: Any) -> None:
        self._double = double
        self._engine = double.behind(engine)
        self._graph = b""

    def refit_cuda_engine(self) -> bool:
        assert self._graph, "no graph has given weights"
        if self._double.script.lacking_weights or not self._double.script.refits:
            return False
        self._engine._graph = self._graph
        return True

    def get_missing_weights(self) -> list[str]:
        return list(self._double.script.lacking_weights)


class ParserRefitter:
    """OnnxParserRefitter: takes weights from the graph that a plan was built from."""

    def __init__(self, double: Double, refitter: Any, logger: Any) -> None:
        self._double, self._refitter, self._logger = double, double.behind(refitter), logger
        self.num_errors = 0

    def refit_from_bytes(self, model: bytes, path: str | None = None) -> bool:
        wanted = self._refitter._engine._plan.facts["model_sha256"]
        fits = bool(wanted == hashlib.sha256(model).hexdigest())
        self.num_errors = 0 if fits else 1
        self._refitter._graph = bytes(model) if fits else b""
        return fits

    def get_error(self, index: int) -> Any:
        error = ParserError("REFIT_FAILED", "Name not found in the engine's weights.", 0, "w", "")
        return self._double.of(self._double.trt.ParserError, Refusal(self._double.trt, error))


class Inspector:
    """EngineInspector: the table of layers."""

    def __init__(self, double: Double, plan: Plan) -> None:
        self._double, self._plan = double, plan

    def get_engine_information(self, format: Any) -> str:
        assert format == self._double.trt.LayerInformationFormat.JSON
        return json.dumps({"Layers": [layer["name"] for layer in self._plan.facts["layers"]]})
