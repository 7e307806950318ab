"""One engine on this device: plugins compiled, plan built or found again, opened."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from irstd.bundle import Bundle
from irstd.compile.builders.tensorrt import PlanSettings, build_plan
from irstd.compile.builders.torch_tensorrt_bundle import TorchSource
from irstd.compile.engine_store import (
    StoredEngine,
    find_engine,
    find_timing,
    keep_engine,
    sole_builder,
)
from irstd.compile.finish_plugins import Plugins, compile_plugins
from irstd.compile.progress import Progress
from irstd.engine_record import PLUGIN_GRAPH, EngineDevice, EngineKey, EngineRecord, PlanForm
from irstd.errors import BuildError
from irstd.files import sha256_hex
from irstd.runtime.finished import load_plugin, plan_options, unpack_library
from irstd.runtime.kernels.cuda.bindings import Properties
from irstd.runtime.sessions import Session, open_session
from irstd.types import Precision
from irstd.version import __version__


@dataclasses.dataclass(frozen=True)
class Bench:
    """What engines of one bundle are built with, here and now.

    Attributes:
        bundle: Holds the graphs.
        device: What an engine is for.
        properties: Of the GPU.
        cache: Folder for engines, None for none.
        progress: Told of each stage.
        rebuild: Build anew, whatever the cache holds.
        torch: Builds the deployed graph's engine from a torch module; None: from the graph.
        form: Of the deployed graph's plan.
        plugins: Whether fused operators may run in plugins.
        dla_core: That runs what it can of the deployed graph; None: the GPU runs all.
        earlier: What the bundle holds, of another form: its timing cache may be of use.
    """

    bundle: Bundle
    device: EngineDevice
    properties: Properties
    cache: Path | None
    progress: Progress
    rebuild: bool = False
    torch: TorchSource | None = None
    form: PlanForm = PlanForm.WHOLE
    plugins: bool = True
    dla_core: int | None = None
    earlier: StoredEngine | None = None


@dataclasses.dataclass(frozen=True)
class Made:
    """An engine of this device, its plugins loaded.

    Attributes:
        engine: To be opened, and put into the bundle.
        libraries: Its plugin libraries, by the member of a bundle that holds each.
        origin: Where it comes from: "built", "cache" or "bundle".
        build: Seconds, tactics skipped for want of memory, and notes; empty if not built now.
    """

    engine: StoredEngine
    libraries: Mapping[str, bytes]
    origin: str
    build: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def make_engine(bench: Bench, member: str) -> Made:
    """Return an engine of one of the bundle's graphs, built if the cache has none.

    Args:
        bench: What to build with.
        member: The graph; instead of the deployed one that with plugin nodes, where the bundle has
            it and the plugins can be compiled here.

    Raises:
        DeviceError: A plugin does not load.
        BuildError: TensorRT refuses the graph, or has not the memory; or the cache is not writable.
    """
    is_plain = member == bench.bundle.manifest.reference
    precision = Precision.FP32 if is_plain else bench.bundle.manifest.precision
    settings = PlanSettings(
        precision,
        memory_bytes=bench.properties.memory_bytes,
        version_compatible=not is_plain and bench.form is PlanForm.VERSION_COMPATIBLE,
        strip_weights=not is_plain and bench.form is PlanForm.WEIGHT_STRIPPED,
        dla_core=None if is_plain else bench.dla_core,
    )
    torch = None if is_plain else bench.torch
    plugins = Plugins()
    if bench.plugins and not (is_plain or torch):
        plugins = compile_plugins(bench.bundle, bench.properties, bench.progress)
    graph = PLUGIN_GRAPH if plugins.members else member
    model = bench.bundle.read(graph)
    key = EngineKey(
        graph_sha256=sha256_hex(model),
        precision=precision.value,
        device=bench.device,
        flags=(*settings.flags, *torch.flags) if torch else settings.flags,
        plugins={op: sha256_hex(plugins.libraries[name]) for op, name in plugins.members.items()},
    )
    with sole_builder(bench.cache, key, bench.progress):
        if not bench.rebuild and (found := find_engine(bench.cache, key)):
            return Made(found, plugins.libraries, "cache")
        bench.progress.stage(f"building the engine of {graph}")
        try:
            built = (
                torch.build(settings)
                if torch
                else build_plan(
                    model, settings, timing_cache=_timing(bench), tell=bench.progress.step
                )
            )
        except BuildError as error:
            if not plugins.members:
                raise
            raise BuildError(f"{error}; with --no-plugins it needs none") from error
        record = EngineRecord(
            key,
            sha256_hex(built.plan),
            sha256_hex(built.timing_cache),
            plugins.members,
            __version__,
        )
        engine = StoredEngine(record, built.plan, built.timing_cache)
        keep_engine(bench.cache, engine)
    told = {
        "seconds": built.seconds,
        "skipped_tactics": built.skipped_tactics,
        "notes": [*built.notes, *filter(None, [plugins.lacking])],
        "dla_layers": list(built.dla_layers),
    }
    return Made(engine, plugins.libraries, "built", told)


def use_held(bundle: Bundle, held: StoredEngine) -> Made:
    """Return the engine that a bundle holds already, for this device.

    Raises:
        DeviceError: A plugin does not load.
    """
    for op, member in held.record.libraries.items():
        load_plugin(op, unpack_library(bundle, member))
    libraries = {member: bundle.read(member) for member in held.record.libraries.values()}
    return Made(held, libraries, "bundle")


def open_engine(bundle: Bundle, engine: StoredEngine) -> Session:
    """Load an engine whose plugins are loaded.

    Args:
        bundle: Holds the graph that it is of.
        engine: Made or held.

    Raises:
        BundleMismatch: It is none that this TensorRT loads.
        DeviceError: The GPU has not the memory to run it.
    """
    return open_session("tensorrt", engine.plan, **plan_options(bundle, engine.record))


def _timing(bench: Bench) -> bytes:
    """Return what was measured here before, so that kernels are not timed again; or nothing."""
    if bench.rebuild:
        return b""
    kept = find_timing(bench.cache, bench.device)
    earlier = bench.earlier
    if kept or earlier is None or earlier.record.key.device != bench.device:
        return kept
    return earlier.timing
