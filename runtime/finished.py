"""An engine that was built into a bundle: may it run here, and what has to be loaded before it."""

import logging
from pathlib import Path
from typing import TypedDict

from irstd.bundle import Bundle
from irstd.container import violation
from irstd.engine_record import (
    PLAN,
    PLUGIN_GRAPH,
    EngineDevice,
    EngineRecord,
    PlanForm,
    differences,
    member_names,
    parse_record,
)
from irstd.errors import BundleMismatch, DeviceError
from irstd.files import cache_dir, keep_content
from irstd.runtime.machine.identity import this_device
from irstd.runtime.tensorrt.api import LOG, load_tensorrt
from irstd.targets import TARGETS, find_target

_log = logging.getLogger(__name__)
# Sessions that load an engine of one device, not a graph.
PLAN_SESSIONS = ("tensorrt", "tensorrt_rtx")
RTX = ".rtx"  # of TensorRT for RTX, for every card of a compute capability


def is_plan(member: str) -> bool:
    """Whether a member is an engine of one device."""
    return member.endswith(PLAN)


def is_engine(member: str) -> bool:
    """Whether a member is an engine, not a graph."""
    return member.endswith((PLAN, RTX))


class PlanOptions(TypedDict):
    """What a session of TensorRT is told of a plan, besides its bytes.

    Attributes:
        weights: The graph that gives the plan its weights; None for a plan that holds them.
        dla_core: Core of the Deep Learning Accelerator that runs a part of it; None without.
    """

    weights: bytes | None
    dla_core: int | None


def prepare_plan(bundle: Bundle, member: str) -> PlanOptions:
    """Make sure that a plan may be loaded here, and load the plugins that it needs.

    Args:
        bundle: That holds it.
        member: The plan.

    Returns:
        For irstd.runtime.sessions.open_session.

    Raises:
        BundleCorrupt: A rule of docs/bundle-format.md, "Engines of a finished bundle", is violated.
        BundleMismatch: It was built on another device, or by another library or driver.
        MissingDependency: No TensorRT, or no package that reaches the driver.
        DeviceError: No GPU, or a plugin library does not load.
    """
    record = read_record(bundle, member)
    here, _ = this_device()
    check_device(bundle, record, here)
    for op, library in record.libraries.items():
        load_plugin(op, unpack_library(bundle, library))
    return plan_options(bundle, record)


def plan_options(bundle: Bundle, record: EngineRecord) -> PlanOptions:
    """Return what a session has to be told of a plan.

    Args:
        bundle: Where the graph is.
        record: Of the plan; it is of a graph of this bundle.
    """
    weights = None
    if record.key.form is PlanForm.WEIGHT_STRIPPED:
        wanted = record.key.graph_sha256
        weights = bundle.read(next(n for n, m in bundle.members.items() if m.sha256 == wanted))
    return PlanOptions(weights=weights, dla_core=record.key.dla_core)


def read_record(bundle: Bundle, member: str) -> EngineRecord:
    """Read the record beside a plan and hold it against the bundle.

    Raises:
        BundleCorrupt: See docs/bundle-format.md.
    """
    digest = member.removeprefix("engines/").removesuffix(PLAN)
    plan, timing, beside = member_names(digest)
    where = f"{bundle.path}: {beside}"
    if beside not in bundle.members:
        raise violation(
            "engine-record", f"{where} is missing; {plan} cannot be told from a stranger"
        )
    record = parse_record(bundle.read(beside), where)
    if record.key.digest != digest:
        raise violation("engine-key", f"{where} is the record of {record.key.digest}")
    graph = PLUGIN_GRAPH if record.key.plugins else bundle.manifest.model
    if graph not in bundle.members or bundle.members[graph].sha256 != record.key.graph_sha256:
        raise violation("engine-key", f"{where} is of another graph than {graph}")
    for name, stated in ((plan, record.plan_sha256), (timing, record.timing_sha256)):
        if name not in bundle.members or bundle.members[name].sha256 != stated:
            raise violation("engine-files", f"{where} states another hash of {name}")
    for op, library in record.libraries.items():
        if not library.startswith(f"kernels/{op}/") or library not in bundle.members:
            raise violation("engine-plugins", f"{where}: {op} is in {library}, which is no member")
        if bundle.members[library].sha256 != record.key.plugins.get(op):
            raise violation("engine-plugins", f"{where} states another hash of {library}")
    if set(record.libraries) != set(record.key.plugins):
        raise violation("engine-plugins", f"{where} names a plugin that has no library")
    return record


def check_device(bundle: Bundle, record: EngineRecord, here: EngineDevice) -> None:
    """Refuse an engine of another device.

    Raises:
        BundleMismatch: Names both sides, and the command that mends it.
    """
    if told := differences(record.key.device, here, record.key.form):
        raise BundleMismatch(
            f"{bundle.path}: its engine is another machine's: {'; '.join(told)}; it is not loaded: "
            f"{_advice(bundle, record, here)} (rule: engine-device)"
        )


def wants_finish(bundle: Bundle) -> BundleMismatch:
    """Return the error of a bundle whose engine has still to be built, or never will be."""
    target = find_target(bundle.manifest.target)
    if not target.portable:
        return BundleMismatch(
            f"{bundle.path}: built for {target.name}, it holds no engine of a GPU; leave the "
            "engine to the bundle, or build it for the GPU: irstd-compile build ... --target"
        )
    return BundleMismatch(
        f"{bundle.path}: built for {target.name}, it holds no engine for this machine; "
        f"on that device: irstd-compile finish {bundle.path}"
    )


def unpack_library(bundle: Bundle, member: str) -> Path:
    """Return the path of a plugin library of a bundle, named by its content.

    Raises:
        DeviceError: The cache cannot be written.
    """
    stated = bundle.members[member].sha256
    path = cache_dir() / "plugins" / f"{stated}.so"
    try:
        keep_content(path, stated, lambda: bundle.read(member))
    except OSError as error:
        raise DeviceError(
            f"{path}: a plugin library of {bundle.path} cannot be kept there ({error.strerror}); "
            "set IRSTD_CACHE to a folder that can be written"
        ) from error
    return path


def load_plugin(op: str, path: Path) -> None:
    """Load a plugin library, so that TensorRT finds its creators by name.

    Raises:
        DeviceError: It does not load, or holds no plugin.
    """
    LOG.clear()
    registry = load_tensorrt().get_plugin_registry()
    if registry is None:
        raise DeviceError(LOG.explain("TensorRT has no plugin registry; install it again"))
    try:
        handle = registry.load_library(str(path))
    except (RuntimeError, ValueError, OSError) as error:
        raise DeviceError(LOG.explain(_no_plugin(op, path, str(error)))) from error
    if handle is None:
        raise DeviceError(LOG.explain(_no_plugin(op, path, "TensorRT refuses it")))
    _log.info("plugin of %s: %s", op, path)


def _no_plugin(op: str, path: Path, reason: str) -> str:
    return (
        f"the plugin of {op} does not load ({reason}): {path}; "
        "build the engine again with irstd-compile finish BUNDLE --rebuild"
    )


def _advice(bundle: Bundle, record: EngineRecord, here: EngineDevice) -> str:
    """Return the command: built again on the same kind of device, or for another."""
    target = find_target(bundle.manifest.target)
    if target.compute_capability == divmod(here.architecture, 10):
        form = record.key.form.flag
        return " ".join(filter(None, [f"irstd-compile finish {bundle.path} --rebuild", form]))
    fitting = [
        name for name, t in TARGETS.items()
        if t.compute_capability == divmod(here.architecture, 10)
    ]  # fmt: skip
    if not fitting:
        return f"no target is for sm_{here.architecture}"
    return f"irstd-compile build ... --target {fitting[0]}, then finish it here"
