"""The process in which TensorRT for RTX builds one engine.

A process of its own, because two flavours of TensorRT in one are unsafe, because a refused network
may abort it, and because nothing else can be stopped after a time limit.

A request on standard input is a line of JSON {"capability", "model_bytes"}, then the ONNX bytes.
Answers on standard output are lines of JSON:

    {"progress": [phase, steps done, steps]}                                      any number, then
    {"refused": [{"node", "operator", "code", "reason"}], "log": [text]}          or
    {"failed": text, "log": [text]}                                               or
    {"plan_bytes", "library", "layers", "log"}, and the plan after it
"""

import contextlib
import json
import os
import re
import sys
from typing import Any, BinaryIO

from irstd.compile.builders.tensorrt_rtx_layers import HEADING
from irstd.runtime.tensorrt.api import Log
from irstd.runtime.tensorrt.rtx import load_tensorrt_rtx

# Every message of the parser ends in this where there is no GPU; it explains nothing.
_NO_GPU = re.compile(r"\s*\[checkMacros\.cpp::catchCudaError.*?\(cudaError \d+:.*?\)\)", re.DOTALL)
_PHASES_TOLD = ("Building engine", "Optimizing graph")


def main() -> None:
    """Answer one request."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the library prints is no answer
    request = json.loads(sys.stdin.buffer.readline())
    model = sys.stdin.buffer.read(int(request["model_bytes"]))
    trt = load_tensorrt_rtx()
    with contextlib.suppress(BrokenPipeError), answers:
        _build(trt, model, tuple(request["capability"]), answers)


def _build(trt: Any, model: bytes, capability: tuple[int, int], answers: BinaryIO) -> None:
    log, tables = Log(), list[str]()
    logger = _logger(trt, log, tables)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        errors = [_refusal(parser.get_error(index)) for index in range(parser.num_errors)]
        _answer(answers, {"refused": errors, "log": log.lines})
        return
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    # On by default: float32 products would keep 10 bits of the 23, which golden frames do not pass.
    config.clear_flag(trt.BuilderFlag.TF32)
    major, minor = capability
    compute = getattr(trt.ComputeCapability, f"SM{major}{minor}", None)
    if compute is None:
        told = (
            f"TensorRT for RTX {trt.__version__} builds for no card of capability {major}.{minor}"
        )
        _answer(answers, {"failed": told, "log": log.lines})
        return
    config.num_compute_capabilities = 1
    config.set_compute_capability(compute, 0)
    monitor = _monitor(trt, answers)  # the config does not keep it alive
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        _answer(answers, {"failed": "it built no engine", "log": log.lines})
        return
    content = bytes(plan)
    facts = {
        "plan_bytes": len(content),
        "library": f"tensorrt_rtx {trt.__version__}",
        "layers": "\n".join(tables),
        "log": log.lines,
    }
    _answer(answers, facts)
    answers.write(content)


def _refusal(error: Any) -> dict[str, str]:
    return {
        "node": error.node_name(),
        "operator": error.node_operator(),
        "code": error.code().name,
        "reason": _NO_GPU.sub("", error.desc()).strip(),
    }


def _logger(trt: Any, log: Log, tables: list[str]) -> Any:
    """Return a logger that keeps what matters, and the table of layers, which is verbose."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity != trt.ILogger.VERBOSE:
                log.add(severity.name.lower().replace("_", " "), _NO_GPU.sub("", message))
            elif message.startswith(HEADING):
                tables.append(message)

    return Logger()


def _monitor(trt: Any, answers: BinaryIO) -> Any:
    """Return a progress monitor that tells of the few phases that take time."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.steps[phase] = steps

        def step_complete(self, phase: str, step: int) -> bool:
            if phase in _PHASES_TOLD:
                _answer(answers, {"progress": [phase, step + 1, self.steps[phase]]})
            return True  # False would cancel the build

        def phase_finish(self, phase: str) -> None:
            """Nothing: the last step said it."""

    return Monitor()


def _answer(answers: BinaryIO, content: dict[str, Any]) -> None:
    answers.write(json.dumps(content).encode() + b"\n")
    answers.flush()
