"""Engines of TensorRT, built on the device that will run them: 10.3 to 11, 8.6 as well as it can.

Which precision a layer computes in stands in the graph, so the network is strongly typed wherever
the version knows that (10.0; 11 knows nothing else). TensorRT 8.6 does not: there the flags FP16
and INT8 allow what the graph's casts and Q/DQ ask for, and it may still choose float32 where that
is faster. 8.6 is held against its documentation only: the tests have no bindings of it.

Needs neither torch nor onnx.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from irstd.compile.builders.tensorrt_errors import (
    build_failure,
    no_object,
    parser_failure,
    plan_failure,
)
from irstd.compile.builders.tensorrt_layers import PlanLayer, read_plan_layers
from irstd.compile.builders.tensorrt_plugins import QuickPlugins, load_libraries, register_quick
from irstd.compile.builders.tensorrt_progress import Tell, watch
from irstd.errors import BuildError, DeviceError, UsageError
from irstd.runtime.tensorrt.api import (
    LOG,
    STRONGLY_TYPED,
    Version,
    load_tensorrt,
    tensorrt_logger,
    version_of,
)
from irstd.runtime.tensorrt.refit import refit
from irstd.types import Precision

_log = logging.getLogger(__name__)

MIB = 1 << 20
# TensorRT's default is all of the device's memory, which on a Jetson is also the host's.
WORKSPACE_SHARE = 8
MOST_WORKSPACE_BYTES = 4096 * MIB
LEAST_WORKSPACE_BYTES = 64 * MIB
LEVELS = range(6)
WEIGHT_STRIPPED = Version(10, 0)


@dataclasses.dataclass(frozen=True)
class PlanSettings:
    """How a plan is built. Precision is not among them: the graph says it.

    Attributes:
        precision: Of the graph; asked for by TensorRT 8.6 only, which is not strongly typed.
        workspace_bytes: Most scratch memory of one layer; None: by `memory_bytes`.
        memory_bytes: Of the board or card; None leaves TensorRT's own limit, all of it.
        optimization_level: 0 (builds fast) to 5 (compiles and times every kernel it can); 3 is
            TensorRT's default.
        version_compatible: The plan runs in later versions too, through a lean runtime inside it.
            Slower to load, and no faster to run.
        strip_weights: The plan holds no weights: whoever loads it gives it those of the graph
            (irstd.runtime.tensorrt.refit). No slower to run.
        dla_core: Run on this core of the Deep Learning Accelerator what it can; the GPU does the
            rest. None: all on the GPU.
        plugin_libraries: Shared libraries of plugins that the graph needs.
        quick_plugins: Kernels that the plan itself carries, for TensorRT 10.9 and later.
    """

    precision: Precision = Precision.FP32
    workspace_bytes: int | None = None
    memory_bytes: int | None = None
    optimization_level: int = 3
    version_compatible: bool = False
    strip_weights: bool = False
    dla_core: int | None = None
    plugin_libraries: tuple[Path, ...] = ()
    quick_plugins: QuickPlugins | None = None

    def __post_init__(self) -> None:
        if self.optimization_level not in LEVELS:
            raise UsageError(f"optimization level {self.optimization_level!r}: wanted 0 to 5")
        if self.workspace_bytes is not None and self.workspace_bytes < MIB:
            raise UsageError(f"workspace of {self.workspace_bytes} bytes: wanted at least 1 MiB")
        if self.dla_core is not None and self.dla_core < 0:
            raise UsageError(f"DLA core {self.dla_core}: wanted 0 or more")

    @property
    def workspace_limit(self) -> int | None:
        """Bytes that one layer may use as scratch memory; None: TensorRT's own limit."""
        if self.workspace_bytes is not None or self.memory_bytes is None:
            return self.workspace_bytes
        share = self.memory_bytes // WORKSPACE_SHARE
        return min(max(share, LEAST_WORKSPACE_BYTES), MOST_WORKSPACE_BYTES)

    @property
    def flags(self) -> tuple[str, ...]:
        """What of these settings decides which plan is built, each as "name=value": for its key."""
        limit = self.workspace_limit
        values: Mapping[str, object] = {
            "dla_core": self.dla_core,
            "optimization_level": self.optimization_level,
            "quick_plugins": self.quick_plugins is not None,
            "strip_weights": self.strip_weights,
            "version_compatible": self.version_compatible,
            "workspace_mib": None if limit is None else limit // MIB,
        }
        return tuple(f"{name}={value}" for name, value in values.items())


@dataclasses.dataclass(frozen=True)
class BuiltPlan:
    """An engine, serialized.

    Attributes:
        plan: What TensorRT deserializes; no header of ours, so `trtexec --loadEngine` takes it.
        timing_cache: What was measured, for the next build with this TensorRT on this device.
        library: Such as "TensorRT 10.3.0".
        layers: What the engine computes, in which types.
        dla_layers: Layers of the network that the accelerator runs; empty without it.
        skipped_tactics: Kernels that were not tried because memory was short: with more free, the
            engine may be faster.
        notes: What did not go as asked and did no harm.
        seconds: What the build took.
    """

    plan: bytes
    timing_cache: bytes
    library: str
    layers: tuple[PlanLayer, ...]
    dla_layers: tuple[str, ...]
    skipped_tactics: int
    notes: tuple[str, ...]
    seconds: float


def build_plan(
    model: bytes,
    settings: PlanSettings | None = None,
    *,
    timing_cache: bytes = b"",
    tell: Tell | None = None,
    trt: ModuleType | None = None,
) -> BuiltPlan:
    """Build an engine for this machine's GPU.

    Args:
        model: Serialized ONNX graph of fixed shape whose types are explicit.
        settings: How; None takes the defaults.
        timing_cache: Of an earlier build here; one of another version or device is ignored, and
            `notes` says so.
        tell: Called with the phase, its steps done and its steps, from TensorRT's threads.
        trt: The module `tensorrt`; None imports it.

    Returns:
        The plan and what is known of it. Two builds of one graph may differ: which kernels are
        chosen depends on measurements, unless the timing cache holds them all.

    Raises:
        MissingDependency: TensorRT is not installed, or not in a usable version.
        DeviceError: No GPU that it can use, or no such DLA core; a plugin library does not load.
        BuildError: It refuses the graph (node, operator and reason are named) or finds no engine,
            or memory is short. The last lines of its log are in the message.
        UsageError: The version has no such option.
        KeyboardInterrupt: Ctrl-C while it built; TensorRT is left in order.
    """
    settings = settings or PlanSettings()
    trt = trt or load_tensorrt()
    version = version_of(trt)
    begun = time.monotonic()
    LOG.clear()
    with LOG.collecting("Skipping tactic") as skipped:
        builder = _made(trt, "Builder", lambda: trt.Builder(tensorrt_logger(trt)))
        _prepare_plugins(trt, builder, settings)
        network = _made(trt, "network", lambda: builder.create_network(_network_flags(trt)))
        parser = _made(trt, "OnnxParser", lambda: trt.OnnxParser(network, tensorrt_logger(trt)))
        if not parser.parse(model):
            raise BuildError(parser_failure(trt, parser))
        config = _made(trt, "configuration", builder.create_builder_config)
        dla_layers = _configure(trt, builder, config, network, settings)
        notes = _use_timing_cache(config, timing_cache)
        with watch(trt, config, tell) as watcher:
            memory = builder.build_serialized_network(network, config)
        watcher.raise_interrupt()
        if memory is None:
            raise build_failure(version, settings.workspace_limit, settings.memory_bytes)
    plan = bytes(memory)
    return BuiltPlan(
        plan=plan,
        timing_cache=_serialized(config.get_timing_cache()),
        library=f"TensorRT {version}",
        layers=inspect_plan(
            plan,
            trt=trt,
            weights=model if settings.strip_weights else None,
            dla_core=settings.dla_core,
        ),
        dla_layers=dla_layers,
        skipped_tactics=len(skipped),
        notes=notes,
        seconds=time.monotonic() - begun,
    )


def inspect_plan(
    plan: bytes,
    *,
    trt: ModuleType | None = None,
    weights: bytes | None = None,
    dla_core: int | None = None,
) -> tuple[PlanLayer, ...]:
    """Return the layers of a plan, as TensorRT's inspector lists them.

    Args:
        plan: Built here, with its plugins still loaded.
        trt: The module `tensorrt`; None imports it.
        weights: The graph, for a plan that holds none; shows that it gets them.
        dla_core: Of the Deep Learning Accelerator, for a plan that was built for one.

    Raises:
        MissingDependency, DeviceError: As `build_plan`.
        BundleMismatch: The weights are of another graph.
        BuildError: It does not deserialize; where the log names the machine's fault, DeviceError.
    """
    trt = trt or load_tensorrt()
    LOG.clear()
    runtime = _made(trt, "Runtime", lambda: trt.Runtime(tensorrt_logger(trt)))
    # Plans that run in later versions carry a runtime of their own; this one was just built here.
    runtime.engine_host_code_allowed = True
    if dla_core is not None:
        runtime.DLA_core = dla_core
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise plan_failure(version_of(trt))
    if weights is not None:
        refit(trt, engine, weights)
    inspector = engine.create_engine_inspector()
    return read_plan_layers(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _made(trt: ModuleType, what: str, make: Callable[[], Any]) -> Any:
    """Return what `make` makes; TensorRT says in its log why it makes nothing."""
    try:
        made = make()
    except TypeError as error:  # what the bindings raise for a null pointer
        if "nullptr" not in str(error):
            raise
        made = None
    if made is None:
        raise no_object(version_of(trt), what)
    return made


def _network_flags(trt: ModuleType) -> int:
    """Return the flags of a network whose types are those of the graph."""
    flag = trt.NetworkDefinitionCreationFlag
    if version_of(trt) >= STRONGLY_TYPED:
        return 1 << int(flag.STRONGLY_TYPED)
    return 1 << int(flag.EXPLICIT_BATCH)


def _prepare_plugins(trt: ModuleType, builder: Any, settings: PlanSettings) -> None:
    load_libraries(builder.get_plugin_registry(), settings.plugin_libraries)
    if settings.quick_plugins is not None:
        register_quick(trt, settings.quick_plugins)


def _configure(
    trt: ModuleType, builder: Any, config: Any, network: Any, settings: PlanSettings
) -> tuple[str, ...]:
    """Write the settings into TensorRT's configuration; return the layers that DLA will run."""
    version, flag = version_of(trt), trt.BuilderFlag
    config.builder_optimization_level = settings.optimization_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # layers with types
    # On by default: convolutions of float32 graphs would keep 10 bits of the 23.
    config.clear_flag(flag.TF32)
    if (limit := settings.workspace_limit) is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, limit)
    if version < STRONGLY_TYPED:
        if settings.precision is not Precision.FP32:
            config.set_flag(flag.FP16)
        if settings.precision is Precision.INT8:
            config.set_flag(flag.INT8)
    if settings.version_compatible:
        config.set_flag(flag.VERSION_COMPATIBLE)
        if settings.plugin_libraries:
            config.plugins_to_serialize = [str(path) for path in settings.plugin_libraries]
    if settings.strip_weights:
        if version < WEIGHT_STRIPPED:
            raise UsageError(f"TensorRT {version} keeps weights in its plans; wanted 10.0 or later")
        config.set_flag(flag.STRIP_PLAN)
        config.set_flag(flag.REFIT_IDENTICAL)
    if settings.dla_core is None:
        return ()
    return _use_dla(trt, builder, config, network, settings.dla_core)


def _use_dla(
    trt: ModuleType, builder: Any, config: Any, network: Any, core: int
) -> tuple[str, ...]:
    if core >= builder.num_DLA_cores:
        raise DeviceError(
            f"DLA core {core}: TensorRT {version_of(trt)} sees {builder.num_DLA_cores} on this "
            "device; AGX Orin has 2, Orin NX 1 or 2, Orin Nano and cards none; build without DLA"
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    return tuple(layer.name for layer in layers if config.can_run_on_DLA(layer))


def _use_timing_cache(config: Any, data: bytes) -> tuple[str, ...]:
    """Give the build what was measured before; return a note where that is of no use."""
    if data:
        with LOG.collecting("timing cache will not be used") as refused:
            cache = config.create_timing_cache(data)
            used = cache is not None and config.set_timing_cache(cache, False)
        if used and not refused:
            return ()
    empty = config.create_timing_cache(b"")
    used = empty is not None and config.set_timing_cache(empty, False)
    if not used:
        return ("TensorRT keeps no timing cache here: each build measures anew",)
    if not data:
        return ()
    note = "the timing cache is of another TensorRT or another GPU, or damaged: measured anew"
    _log.warning("%s", note)
    return (note,)


def _serialized(cache: Any) -> bytes:
    memory = None if cache is None else cache.serialize()
    return b"" if memory is None else bytes(memory)
