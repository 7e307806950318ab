"""From what a user names to the graph that an estimate counts, in the asked precision. Needs onnx.

What a graph costs depends on its shapes, not on its numbers: networks without shipped weights get
random ones, and INT8 gets unit ranges instead of calibrated ones. Neither graph is for running.
"""

import dataclasses
from pathlib import Path

import numpy as np
import onnx

from irstd.bundle import read_bundle
from irstd.calibration.scales import ScaleTable, TensorRange
from irstd.compile.fused import write_out
from irstd.compile.half import to_float16
from irstd.compile.legalise import legalise
from irstd.compile.networks import NETWORKS
from irstd.compile.onnx_source import load_onnx_source
from irstd.compile.operators.nodes import fused_nodes
from irstd.compile.opset import to_opset19
from irstd.compile.prepare import Prepared, prepare
from irstd.compile.quantize import plan_int8, quantize, tensors_to_calibrate
from irstd.compile.settings import Normalization, SourceSettings
from irstd.compile.shipped import shipped_names
from irstd.compile.sources import Source, open_source
from irstd.errors import BundleCorrupt, UsageError, one_line
from irstd.targets import Target
from irstd.types import Precision

PRECISIONS = (Precision.FP32, Precision.FP16, Precision.INT8)  # what a source is estimated in
_UNIT = TensorRange(-1.0, 1.0, -1.0, 1.0, 0.0)
# Where the graph decides nothing about normalisation, and the cost does not depend on it.
_ANY_NORMALIZATION = Normalization((0.0,), (1.0,))


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is estimated.

    Attributes:
        name: Of the network.
        size_hw: Of the input, px.
        target: That a bundle was built for; None for a source.
        graphs: By precision; a bundle has one.
    """

    name: str
    size_hw: tuple[int, int]
    target: str | None
    graphs: dict[Precision, onnx.ModelProto]


def open_subject(
    source: str,
    target: Target,
    precision: Precision | None = None,
    size_hw: tuple[int, int] | None = None,
) -> Subject:
    """Open a bundle, network or ONNX file.

    Args:
        source: Path of an .irstd or .onnx file, or a network's name.
        target: Whose form of the graph is wanted, the same for all GPUs; a bundle's graph stays as
            it was built.
        precision: One of PRECISIONS; None: all of a source's, the one of a bundle.
        size_hw: Input size, px; None: the default. A bundle has its own.

    Raises:
        UsageError: Neither of these, or a precision or size that a bundle does not have.
        BundleError: The bundle is not sound.
        ExportError: The graph cannot be read or lowered.
        MissingDependency: A network without shipped weights, and torch is not installed.
    """
    if source.endswith(".irstd"):
        return _bundle(Path(source), precision, size_hw)
    prepared = prepared_of(source, size_hw)
    wanted = PRECISIONS if precision is None else (precision,)
    graphs = {item: _lowered(prepared, item, target) for item in wanted}
    size = prepared.spec.height, prepared.spec.width
    return Subject(Path(source).stem, size, None, graphs)


def prepared_of(source: str, size_hw: tuple[int, int] | None = None) -> Prepared:
    """Return the static plain graph of a network or ONNX file.

    Args:
        source: Name or path.
        size_hw: Input size, px; None: the default.

    Raises:
        UsageError: Neither a network nor an .onnx file, or no size is known.
        ExportError: The graph cannot be read or rewritten.
        MissingDependency: A network without shipped weights, and torch is not installed.
    """
    settings = SourceSettings(source, imgsz=size_hw, output="logits")
    if source in NETWORKS:
        is_shipped = source in shipped_names()
        return prepare(open_source(settings) if is_shipped else _untrained(source), settings)
    if not source.endswith(".onnx"):
        raise UsageError(
            f"{source!r} is neither a network ({', '.join(NETWORKS)}) nor an .onnx or .irstd file"
        )
    found = load_onnx_source(Path(source), size_hw)
    stem = Path(source).stem
    opened = Source(stem, found.model, _ANY_NORMALIZATION, found.size_hw, None, {})
    return prepare(opened, settings)


def _untrained(name: str) -> Source:
    from irstd.compile.export import export

    spec = NETWORKS[name]
    model = export(spec.build(in_channels=spec.in_channels).eval(), spec.in_channels)
    return Source(name, model, _ANY_NORMALIZATION, spec.default_size_hw, spec.global_pooling, {})


def _lowered(prepared: Prepared, precision: Precision, target: Target) -> onnx.ModelProto:
    """Return the plain graph in a precision and a target's form, without data."""
    plain = prepared.model
    if precision is Precision.FP32:
        return legalise(plain, target)
    if precision is Precision.FP16:
        return to_float16(legalise(plain, target))[0]
    plan = plan_int8(plain, target.int8_form, prepared.spec)
    ranges = dict.fromkeys(tensors_to_calibrate(plain, plan), _UNIT)
    scales = ScaleTable("estimate", 0, ranges)
    legal = legalise(to_opset19(plain), target)
    if target.compute_capability is None:
        return quantize(legal, scales, plan, prepared.spec)
    return to_float16(quantize(legal, scales, plan, prepared.spec, np.float16))[0]


def _bundle(path: Path, precision: Precision | None, size_hw: tuple[int, int] | None) -> Subject:
    bundle = read_bundle(path)
    manifest = bundle.manifest
    size = manifest.input.height, manifest.input.width
    if precision not in (None, manifest.precision):
        raise UsageError(f"{path}: is {manifest.precision.value}; estimate its source for others")
    if size_hw not in (None, size):
        raise UsageError(f"{path}: is for {size[0]}x{size[1]}; estimate its source for others")
    try:
        model = onnx.load_model_from_string(bundle.read(manifest.model))
    except Exception as error:  # protobuf's DecodeError, which it offers without types
        raise BundleCorrupt(f"{path}: its graph is not ONNX ({one_line(error)})") from error
    plain = write_out(model) if fused_nodes(model) else model
    return Subject(manifest.network, size, manifest.target, {manifest.precision: plain})
