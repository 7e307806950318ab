"""Weights for an engine whose plan holds none (PlanSettings.strip_weights), from the graph."""

from types import ModuleType
from typing import Any

from irstd.errors import BundleMismatch, DeviceError, one_line
from irstd.runtime.tensorrt.api import LOG, tensorrt_logger, version_of

_TOLD_WEIGHTS = 3
_OTHER_GRAPH = "it was built from another graph; irstd-compile finish BUNDLE --rebuild"


def refit(trt: ModuleType, engine: Any, model: bytes) -> None:
    """Give an engine its weights, before its first context is made.

    Args:
        trt: The module `tensorrt`.
        engine: Deserialized from a plan without weights.
        model: The serialized ONNX graph that the plan was built from.

    Raises:
        BundleMismatch: The graph is another: weights are missing or of other shapes; names them.
        DeviceError: TensorRT makes no refitter, or the weights do not fit into its memory.
    """
    logger = tensorrt_logger(trt)
    try:
        refitter = trt.Refitter(engine, logger)
        parser = trt.OnnxParserRefitter(refitter, logger)
    except TypeError as error:  # what the bindings raise for a null pointer
        if "nullptr" not in str(error):
            raise
        raise DeviceError(LOG.explain(f"TensorRT {version_of(trt)} makes no refitter")) from error
    if not parser.refit_from_bytes(model):
        said = one_line(parser.get_error(0).desc()) if parser.num_errors else "no reason given"
        raise BundleMismatch(
            LOG.explain(
                f"the plan holds no weights, and the graph does not give them ({said}): "
                f"{_OTHER_GRAPH}"
            )
        )
    if refitter.refit_cuda_engine():
        return
    if missing := refitter.get_missing_weights():
        names = one_line(", ".join(missing[:_TOLD_WEIGHTS]))
        raise BundleMismatch(
            LOG.explain(
                f"the plan holds no weights, and the graph lacks {len(missing)} of them ({names}): "
                f"{_OTHER_GRAPH}"
            )
        )
    raise DeviceError(
        LOG.explain("TensorRT cannot put the weights into the engine: is memory short?")
    )
