"""What a bundle for RTX cards carries of TensorRT for RTX: the engine, where it can be built."""

import dataclasses
import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import onnx

from irstd.compile.builders.cpu import EngineTrials
from irstd.compile.builders.tensorrt_rtx import (
    SESSION,
    RtxEngine,
    build_rtx_engine,
    engine_key,
    rtx_library,
)
from irstd.compile.builders.tensorrt_rtx_layers import EngineLayer, convolution_precisions
from irstd.compile.cache import cached
from irstd.compile.progress import SILENT, Progress
from irstd.errors import BuildError, MissingDependency
from irstd.targets import Target

_log = logging.getLogger(__name__)


def rtx_trials(
    model: bytes, target: Target, cache: Path | None = None, progress: Progress = SILENT
) -> EngineTrials:
    """Build the engine for a target's cards, and say what became of it.

    It cannot be run here, so it is no choice of the manifest: a member, facts for the report, and
    the reason why nothing runs by itself yet. A library that is not installed, or that refuses the
    graph, leaves the bundle portable, and is told.

    Args:
        model: Serialized deployed graph.
        target: One whose engines are built by TensorRT for RTX.
        cache: Folder for stage results, None for none.
        progress: Told of the steps of the build.
    """
    capability = target.compute_capability
    if SESSION not in target.engines or capability is None:
        return EngineTrials()
    try:
        engine = _build(model, capability, cache, progress)
    except (MissingDependency, BuildError) as error:
        _log.warning("no engine for %s in the bundle: %s", target.name, error)
        return EngineTrials(refused={SESSION: f"not built: {error}"})
    member = f"engines/{engine_key(model, engine)}.rtx"
    told = f"built as {member} by {engine.library}, and to be proven on the card"
    facts = engine_facts(model, engine)
    return EngineTrials(
        refused={SESSION: told}, members={member: engine.plan}, built={member: facts}
    )


def engine_facts(model: bytes, engine: RtxEngine) -> dict[str, Any]:
    """Return what a report says of an engine, JSON values.

    Args:
        model: The graph that it was built from.
        engine: From `build_rtx_engine`.

    Returns:
        `library`, `capability`, `plan_bytes`, `layers` (their number), `convolutions` (how many in
        which precision, as the engine's own table has it), and `moved_bytes`, what its layers read
        and write a frame, weights aside; the last three None where the library tells no layers.
    """
    nodes = onnx.load_model_from_string(model).graph.node
    names = [node.name for node in nodes if node.op_type in ("Conv", "ConvTranspose")]
    counts = Counter(convolution_precisions(engine.layers, names).values())
    known = bool(engine.layers)
    return {
        "session": SESSION,
        "library": engine.library,
        "capability": list(engine.capability),
        "plan_bytes": len(engine.plan),
        "layers": len(engine.layers) if known else None,
        "convolutions": dict(sorted(counts.items())) if known else None,
        "moved_bytes": sum(layer.moved_bytes for layer in engine.layers) if known else None,
    }


def _build(
    model: bytes, capability: tuple[int, int], cache: Path | None, progress: Progress
) -> RtxEngine:
    """Build, or take what an earlier build of the same graph left."""
    library = rtx_library()

    def make() -> bytes:
        progress.stage(f"building an engine of {library} for sm_{capability[0]}{capability[1]}")
        engine = build_rtx_engine(model, capability, tell=progress.step)
        facts = dataclasses.asdict(dataclasses.replace(engine, plan=b""))
        del facts["plan"]
        return json.dumps(facts).encode() + b"\n" + engine.plan

    content = cached(cache, SESSION, (model, library, list(capability)), make)
    line, _, plan = content.partition(b"\n")
    facts = json.loads(line)
    layers = tuple(
        EngineLayer(**{name: _tupled(value) for name, value in layer.items()})
        for layer in facts["layers"]
    )
    return RtxEngine(plan, facts["library"], capability, layers, facts["seconds"])


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
