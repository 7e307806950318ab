"""What goes into a bundle: the manifest, and the bytes of every member."""

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irstd.compile import report as reports
from irstd.compile.accuracy import THRESHOLD
from irstd.compile.builders.cpu import REFERENCE, EngineTrials
from irstd.compile.lower import Lowered
from irstd.compile.parity import tolerance_for
from irstd.compile.prepare import Prepared
from irstd.compile.settings import BuildSettings
from irstd.compile.sources import Source
from irstd.engine_record import PLUGIN_GRAPH
from irstd.frames import Frame
from irstd.manifest import Manifest
from irstd.runtime.frame_runner import FrameRunner
from irstd.runtime.sessions import open_session
from irstd.types import InputSpec, Precision
from irstd.version import __version__

REFERENCE_MEMBER = "model.onnx"


def deployed_member(precision: Precision) -> str:
    """Return the member that holds the deployed graph."""
    return f"model.{precision.value}.onnx"


def make_manifest(
    source: Source, prepared: Prepared, settings: BuildSettings, trials: EngineTrials
) -> Manifest:
    """Say everything that running the bundle needs to know."""
    lowering = settings.lowering
    integer = lowering.precision is Precision.INT8
    return Manifest(
        network=source.network,
        input=prepared.spec,
        threshold=THRESHOLD,
        precision=lowering.precision,
        target=lowering.target,
        model=deployed_member(lowering.precision),
        reference=REFERENCE_MEMBER,
        engines=trials.choices,
        global_pooling=source.global_pooling,
        calibration=lowering.calibration if integer else None,
        int8_form=lowering.form if integer else None,
        licences=source.licences,
        resolved=settings.resolved(),
        sdk_version=__version__,
    )


def make_members(
    prepared: Prepared, lowered: Lowered, golden: Sequence[Frame], report: Mapping[str, Any]
) -> dict[str, bytes]:
    """Return the bytes of every member but the manifest.

    Args:
        prepared: The plain FP32 graph.
        lowered: The deployed graph.
        golden: Frames whose logits are kept, so that a device can prove itself.
        report: JSON values.
    """
    plain = prepared.model.SerializeToString()
    members = {REFERENCE_MEMBER: plain, deployed_member(lowered.precision): lowered.model}
    if lowered.plugin_model is not None:
        members[PLUGIN_GRAPH] = lowered.plugin_model
    if lowered.scales is not None:
        members["scales.json"] = lowered.scales.to_json().encode()
    for index, frame in enumerate(golden):
        members[f"golden/frame_{index:03d}.npy"] = _npy(frame)
    fp32 = _reference_logits(plain, prepared.spec, golden)
    deployed = _reference_logits(lowered.model, prepared.spec, golden)
    for kind, maps in (("logits", fp32), ("deployed", deployed)):
        for index, logits in enumerate(maps):
            members[f"golden/{kind}_{index:03d}.npy"] = _npy(logits)
    tolerance = tolerance_for(lowered.precision, deployed, fp32)
    members["golden/tolerance.json"] = json.dumps(dataclasses.asdict(tolerance)).encode()
    members[reports.MEMBER] = json.dumps(report, allow_nan=False).encode()
    return members


def _reference_logits(
    model: bytes, spec: InputSpec, frames: Sequence[Frame]
) -> list[NDArray[np.float32]]:
    """Return the logits of frames, in their own pixels, computed node by node."""
    session = open_session(REFERENCE, model)
    try:
        runner = FrameRunner(session, spec)
        return [runner.logits(frame) for frame in frames]
    finally:
        session.close()


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
