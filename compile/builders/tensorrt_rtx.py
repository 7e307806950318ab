"""Engines of TensorRT for RTX: built on any machine, with or without a GPU; run on the card.

Each build runs in a process of its own (tensorrt_rtx_worker.py), which this module asks.
"""

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from irstd.compile.builders.tensorrt_rtx_layers import EngineLayer, read_layers
from irstd.errors import BuildError, MissingDependency, one_line
from irstd.fingerprint import content_key
from irstd.runtime.tensorrt.rtx import MODULES

SESSION = "tensorrt_rtx"
INSTALL = "pip install 'irstd-sdk[rtx]' (Linux or Windows on x86-64)"
TIMEOUT_S = 600.0
_KEY_DIGITS = 32
_TOLD_LINES = 3
_log = logging.getLogger(__name__)
_MISSING = "irstd.errors.MissingDependency: "
_WORKER = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from irstd.compile.builders.tensorrt_rtx_worker import main; main()"
)
# What to do about a refusal, by what the parser or builder says: the first that occurs in it.
_ADVICE = (
    ("plugin", "write it in standard operators: `irstd-compile build --target rtx-40` does so for "
     "the SDK's own, and every bundle's model.onnx is"),
    ("zero point", "quantize symmetrically, as --int8-form nvidia does for every rtx target"),
    ("must all be positive", "quantize again: a scale is 0 or rounds to it, as float16 below 6e-8 "
     "does"),
    ("must have type FP8", "leave biases and other int32 values in float, as --precision int8 "
     "does"),
    ("same input types", "cast the inputs to one type: the graph is strongly typed, as --precision "
     "fp16 writes it"),
    ("failed to parse the ONNX model", "check the file: it is no ONNX graph"),
    ("optimization profile", "fix the input's size with --imgsz HxW"),
    ("at least one output", "check the file: it is no ONNX graph with an output"),
    ("memory", "close other programs, or build on a machine with more memory"),
)  # fmt: skip
_OTHER_ADVICE = (
    "build with --precision fp32 to see whether the operator or its precision is refused, and "
    "replace that operator in the source"
)


@dataclasses.dataclass(frozen=True)
class RtxEngine:
    """One engine, built and not yet run: only an RTX card can.

    Attributes:
        plan: What TensorRT for RTX deserializes; identical for identical builds.
        library: Library and version, such as "tensorrt_rtx 1.7.1.116".
        capability: Compute capability of the cards that it is for, (major, minor).
        layers: What the engine computes, and in which types.
        seconds: What the build took.
    """

    plan: bytes
    library: str
    capability: tuple[int, int]
    layers: tuple[EngineLayer, ...]
    seconds: float


def rtx_library() -> str | None:
    """Return library and version of TensorRT for RTX, None where it is not installed.

    Nothing is imported: that is for the process that builds.
    """
    for module in MODULES:
        if importlib.util.find_spec(module):
            names = importlib.metadata.packages_distributions().get(module, ["?"])
            with_version = (importlib.metadata.version(name) for name in names if name != "?")
            return f"{SESSION} {next(with_version, 'of unknown version')}"
    return None


def engine_key(model: bytes, engine: RtxEngine) -> str:
    """Return the stem of an engine's bundle member, `engines/<key>.rtx`: all that it depends on.

    Not `.plan`: those are TensorRT's own, of one device (docs/bundle-format.md).
    """
    return content_key(SESSION, model, engine.library, list(engine.capability))[:_KEY_DIGITS]


def build_rtx_engine(
    model: bytes,
    capability: tuple[int, int],
    timeout_s: float = TIMEOUT_S,
    tell: Callable[[str, int, int], None] | None = None,
) -> RtxEngine:
    """Build an engine.

    Args:
        model: Serialized strongly typed ONNX graph of fixed shape.
        capability: Compute capability of the cards: (8, 6), (8, 9) or (12, 0).
        timeout_s: After which the process is stopped.
        tell: Called with phase, steps done and steps as the build goes on.

    Raises:
        MissingDependency: TensorRT for RTX is not installed, or does not load.
        BuildError: The parser or builder refuses the graph, or the process ended early; says which
            node and operator, why, and what to do.
    """
    if rtx_library() is None:
        raise MissingDependency(f"TensorRT for RTX is not installed; {INSTALL}")
    begun = time.monotonic()
    with tempfile.TemporaryFile() as said:
        answer, plan, code = _ask(model, capability, timeout_s, tell, said)
        said.seek(0)
        errors = said.read().decode(errors="replace").strip().splitlines()
    seconds = time.monotonic() - begun
    if answer is None:
        raise _early_end(code, errors, seconds, timeout_s)
    if "refused" in answer:
        raise BuildError(_refusal(answer["refused"], answer["log"]))
    if "failed" in answer or not plan:
        told = answer.get("failed", "the process answered with no engine")
        raise BuildError(_with_advice(f"TensorRT for RTX: {told}", answer["log"]))
    layers = read_layers(answer["layers"])
    _log.info("%s built %d layers in %.1f s", answer["library"], len(layers), seconds)
    return RtxEngine(plan, answer["library"], capability, layers, seconds)


def _ask(
    model: bytes,
    capability: tuple[int, int],
    timeout_s: float,
    tell: Callable[[str, int, int], None] | None,
    said: IO[bytes],
) -> tuple[Mapping[str, Any] | None, bytes, int]:
    """Return the process's last answer (None if it gave none), the plan and the exit code."""
    request = json.dumps({"capability": capability, "model_bytes": len(model)}).encode()
    process = subprocess.Popen(
        # Isolated, with this process's own path: nothing in the working directory is imported.
        [sys.executable, "-I", "-c", _WORKER, json.dumps(sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=said,
    )
    watch = threading.Timer(timeout_s, process.kill)
    watch.start()
    try:
        with process:
            assert process.stdin is not None and process.stdout is not None  # noqa: PT018
            # Where it ends before it reads, its exit code and last words say why.
            with contextlib.suppress(OSError), process.stdin:
                process.stdin.write(request + b"\n" + model)
            answer, plan = _read(process.stdout, tell)
    except BaseException:
        process.kill()
        raise
    finally:
        watch.cancel()
    whole = answer is not None and len(plan) == answer.get("plan_bytes", 0)
    return (answer if whole else None), plan, process.returncode


def _read(
    answers: IO[bytes], tell: Callable[[str, int, int], None] | None
) -> tuple[Mapping[str, Any] | None, bytes]:
    """Return the last answer, None if there is none, and the bytes after it."""
    for line in answers:
        try:
            answer = json.loads(line)
        except ValueError:
            break
        if "progress" not in answer:
            return answer, answers.read()
        if tell is not None:
            tell(*answer["progress"])
    return None, b""


def _refusal(errors: Sequence[Mapping[str, str]], log: Sequence[str]) -> str:
    """Return the message for a network that the parser refuses."""
    if not errors:
        return _with_advice("the parser of TensorRT for RTX refuses the graph", log)
    first = errors[0]
    where = f"node {first['node']!r} ({first['operator']})" if first["operator"] else "the graph"
    others = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
    reason = one_line(first["reason"])
    return (
        f"the parser of TensorRT for RTX refuses {where}{others}: {reason} [{first['code']}]; "
        f"{_advice(first['reason'])}"
    )


def _with_advice(told: str, log: Sequence[str]) -> str:
    grave = [line for line in log if not line.startswith(("[info]", "[verbose]"))]
    shown = "; ".join(one_line(line) for line in (grave or log)[-_TOLD_LINES:]) or "nothing"
    return f"{told}; its log says: {shown}; {_advice(shown)}"


def _advice(reason: str) -> str:
    lower = reason.lower()
    return next((what for key, what in _ADVICE if key.lower() in lower), _OTHER_ADVICE)


def _early_end(
    code: int, errors: Sequence[str], seconds: float, timeout_s: float
) -> BuildError | MissingDependency:
    """Return the error for a process that ended without an answer."""
    last = one_line(errors[-1]) if errors else "it said nothing"
    if last.startswith(_MISSING):
        return MissingDependency(last.removeprefix(_MISSING))
    if seconds >= timeout_s:
        return BuildError(
            f"TensorRT for RTX built no engine within {timeout_s:g} s and was stopped; build on a "
            "faster machine, or a smaller --imgsz"
        )
    how = f"by signal {-code}" if code < 0 and os.name == "posix" else f"with exit code {code}"
    advice = _advice("memory") if code == -9 else "report this with the .onnx file"
    return BuildError(f"the process that builds for TensorRT for RTX ended {how}: {last}; {advice}")
