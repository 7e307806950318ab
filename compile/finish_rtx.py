"""Finishing a bundle for an RTX card with TensorRT for RTX: its engine is opened here, and proven.

The engine came with the bundle, from any machine, and is built here where it did not. Every card of
its compute capability runs it, so no device is kept beside it.
"""

from collections.abc import Sequence
from pathlib import Path

from irstd.bundle import Bundle
from irstd.compile.builders.tensorrt_rtx import SESSION, build_rtx_engine, engine_key, rtx_library
from irstd.compile.finish_checks import check_target
from irstd.compile.finish_proof import Candidate, Proof, measure, prove
from irstd.compile.finish_result import Finished, proven_on, write_finished
from irstd.compile.golden import Golden
from irstd.compile.progress import Progress
from irstd.engine_record import EngineDevice
from irstd.errors import BundleMismatch
from irstd.fingerprint import to_plain
from irstd.frames import LabelledFiles
from irstd.manifest import EngineChoice
from irstd.runtime.finished import RTX
from irstd.runtime.machine.identity import device_with
from irstd.runtime.sessions import Session, open_session
from irstd.targets import find_target


def runs_rtx(bundle: Bundle) -> bool:
    """Whether a bundle's target prefers TensorRT for RTX, and this Python has it."""
    engines = find_target(bundle.manifest.target).engines
    return bool(engines) and engines[0] == SESSION and rtx_library() is not None


def finish_rtx(
    bundle: Bundle,
    out: Path,
    golden: Golden,
    files: Sequence[LabelledFiles],
    proof: Proof,
    *,
    rebuild: bool,
    progress: Progress,
) -> Finished:
    """Prove the engine of TensorRT for RTX on this card, and let the bundle choose it.

    A bundle whose engine was proven on this very card is left as it is.

    Args:
        bundle: For an rtx target.
        out: Bundle to write.
        golden: Frames of the bundle.
        files: Of the data folder.
        proof: What to verify besides the golden frames.
        rebuild: Build anew, whatever the bundle holds.
        progress: Told of each stage.

    Raises:
        BundleMismatch: The bundle is for another device, or another release built its engine.
        MissingDependency: TensorRT for RTX is not installed, or nothing that reaches the driver.
        DeviceError: No GPU.
        BuildError: TensorRT for RTX refuses the graph.
        ParityFailed: The engine disagrees with the golden frames.
        BudgetExceeded: Its accuracy on data is out of budget.
    """
    capability = find_target(bundle.manifest.target).compute_capability
    if SESSION not in find_target(bundle.manifest.target).engines or capability is None:
        raise BundleMismatch(
            f"{bundle.path}: {bundle.manifest.target} does not run TensorRT for RTX; leave "
            "--builder out"
        )
    device, properties = device_with(rtx_library() or SESSION)
    check_target(bundle, device, properties.memory_bytes)
    proven = None if rebuild else _proven_here(bundle, device)
    if proven and out == bundle.path and not files:
        return Finished(out, bundle.sha256, _facts(proven, device), device, "bundle")
    model = bundle.read(bundle.manifest.model)
    held = sorted(name for name in bundle.members if name.endswith(RTX))
    if held and not rebuild:
        member, plan, origin = held[0], bundle.read(held[0]), "bundle"
    else:
        progress.stage(f"building the engine of {bundle.manifest.model}")
        built = build_rtx_engine(model, capability, tell=progress.step)
        member = f"engines/{engine_key(model, built)}{RTX}"
        plan, origin = built.plan, "built"

    def open_plain() -> Session:
        progress.stage(f"building the engine of {bundle.manifest.reference}")
        plain = build_rtx_engine(bundle.read(bundle.manifest.reference), capability)
        return open_session(SESSION, plain.plan)

    candidate = Candidate(
        bundle, golden, device, origin == "built", lambda: open_session(SESSION, plan), open_plain
    )
    progress.stage("running the golden frames")
    parity, median_ms = prove(candidate)
    verdict = measure(candidate, files, proof, out, progress)
    progress.stage(f"writing {out}")
    choice = EngineChoice(
        session=SESSION,
        library=device.library,
        member=member,
        median_ms=median_ms,
        max_abs_error=parity.max_abs_error,
        passed=True,
        chosen=True,
        reason=f"proven on {device}",
    )
    engine = _facts(member, device)
    finished = Finished(out, "", engine, device, origin, parity, median_ms, verdict)
    return write_finished(bundle, finished, choice, {member: plan}, set(held), {})


def _proven_here(bundle: Bundle, device: EngineDevice) -> str | None:
    """Return the engine that the bundle runs and that was proven on this card; None for none."""
    chosen = (tried for tried in bundle.manifest.engines if tried.session == SESSION)
    member = next((tried.member for tried in chosen if tried.chosen), None)
    return member if proven_on(bundle) == to_plain(device) else None


def _facts(member: str, device: EngineDevice) -> dict[str, str]:
    digest = member.removeprefix("engines/").removesuffix(RTX)
    return {"digest": digest, "session": SESSION, "library": device.library}
