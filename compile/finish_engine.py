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
from irstd.compile.progress import Progress
from irstd.compile.report import read_report
from irstd.engine_record import EngineDevice, EngineKey, EngineRecord, PlanForm
from irstd.errors import BundleCorrupt
from irstd.files import cache_dir, sha256_hex, write_atomic
from irstd.runtime.finished import graph_of, load_plugin, unpack_library
from irstd.runtime.kernels.cuda.bindings import Properties, find_binding
from irstd.runtime.kernels.cuda.images import image_for
from irstd.runtime.kernels.tensorrt.plugin_library import build_plugin
from irstd.runtime.sessions import Session, open_session
from irstd.types import Precision
from irstd.version import __version__

# Nodes of domain "irstd", by the folder of their kernels.
_OPERATORS = {
    "HaarGate": "haar_gate",
    "MSDeformAttn": "ms_deform_attn",
    "SpectralSplit": "spectral_split",
}


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
        member: The graph.

    Raises:
        MissingDependency: No headers or no compiler for the plugins that the graph needs.
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
    )
    torch = None if is_plain else bench.torch
    members, libraries = ({}, {}) if is_plain or torch else _compile_plugins(bench)
    model = bench.bundle.read(member)
    key = EngineKey(
        graph_sha256=sha256_hex(model),
        precision=precision.value,
        device=bench.device,
        flags=(*settings.flags, *torch.flags) if torch else settings.flags,
        plugins={op: sha256_hex(libraries[name]) for op, name in members.items()},
    )
    with sole_builder(bench.cache, key, bench.progress):
        if not bench.rebuild and (found := find_engine(bench.cache, key)):
            return Made(found, libraries, "cache")
        bench.progress.stage(f"building the engine of {member}")
        built = (
            torch.build(settings)
            if torch
            else build_plan(model, settings, timing_cache=_timing(bench), tell=bench.progress.step)
        )
        record = EngineRecord(
            key, sha256_hex(built.plan), sha256_hex(built.timing_cache), members, __version__
        )
        engine = StoredEngine(record, built.plan, built.timing_cache)
        keep_engine(bench.cache, engine)
    told = ("seconds", "skipped_tactics", "notes")
    return Made(engine, libraries, "built", {name: getattr(built, name) for name in told})


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
    return open_session("tensorrt", engine.plan, weights=graph_of(bundle, engine.record))


def _timing(bench: Bench) -> bytes:
    """Return what was measured here before, so that kernels are not timed again; or nothing."""
    if bench.rebuild:
        return b""
    kept = find_timing(bench.cache, bench.device)
    earlier = bench.earlier
    if kept or earlier is None or earlier.record.key.device != bench.device:
        return kept
    return earlier.timing


def _compile_plugins(bench: Bench) -> tuple[dict[str, str], dict[str, bytes]]:
    """Compile and load the plugins of the deployed graph, with this device's own tools.

    Returns:
        The member that will hold each operator's library, and the bytes of each such member.
    """
    ops = fused_operators(bench.bundle)
    if not ops:
        return {}, {}
    bench.progress.stage(f"compiling plugins: {', '.join(ops)}")
    driver_version = find_binding().driver_version()
    members, libraries = {}, {}
    for op in ops:
        image = image_for(op, bench.properties.architecture, driver_version)
        kernels = cache_dir() / "kernels" / f"{op}-{sha256_hex(image.data)[:32]}.image"
        if not kernels.is_file():
            write_atomic(kernels, image.data)
        path = build_plugin(op, kernels)
        load_plugin(op, path)
        members[op] = f"kernels/{op}/{path.name}"
        libraries[members[op]] = path.read_bytes()
    return members, libraries


def fused_operators(bundle: Bundle) -> list[str]:
    """Return the operators that the build left fused in the deployed graph, sorted.

    Raises:
        BundleCorrupt: The report names one that there is not.
    """
    kernels = read_report(bundle).get("kernels", {})
    names = list(kernels.values()) if isinstance(kernels, dict) else [kernels]
    if unknown := [name for name in names if not isinstance(name, str) or name not in _OPERATORS]:
        raise BundleCorrupt(
            f"{bundle.path}: report.json names the fused operator {str(unknown[0])[:40]!r}; this "
            f"SDK has {', '.join(_OPERATORS)}"
        )
    return sorted({_OPERATORS[name] for name in names})
