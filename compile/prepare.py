"""From a source to the static plain FP32 graph, and to the preprocessing that goes with it."""

import dataclasses
import json
from pathlib import Path

import onnx

from irstd.compile.cache import cached
from irstd.compile.fused import write_out
from irstd.compile.onnx_graph import dimensions, with_distinct_names
from irstd.compile.operators.nodes import fused_nodes
from irstd.compile.rewrites import rewrite
from irstd.compile.rewrites.append_logit import append_logit
from irstd.compile.rewrites.input_affine import ChannelAffine
from irstd.compile.rewrites.strip_sigmoid import strip_sigmoid
from irstd.compile.settings import Normalization, SourceSettings
from irstd.compile.sources import Source
from irstd.errors import UsageError
from irstd.types import InputSpec

_AFFINE_KEY, _SIGMOID_KEY = "irstd.affine", "irstd.sigmoid"


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A static plain graph with its input.

    Attributes:
        model: FP32, one input of `spec.shape`, one (1, 1, H, W) output of logits; every node has
            a name of its own.
        spec: Size and preprocessing.
        had_sigmoid: Whether a final Sigmoid was removed, or logits were derived on demand.
        fused: The same network with its fused operators as nodes; None where it has none.
    """

    model: onnx.ModelProto
    spec: InputSpec
    had_sigmoid: bool
    fused: onnx.ModelProto | None = None


def prepare(source: Source, settings: SourceSettings, cache: Path | None = None) -> Prepared:
    """Fix the size, simplify, and turn everything before the network into preprocessing data.

    Args:
        source: From `open_source`.
        settings: Size, kind of output, bit depth, fit.
        cache: Folder for stage results, None for none.

    Raises:
        UsageError: No size is known, or the normalisation has other channels than the network.
        ExportError: The graph does not fit the size, or is not a mask network.
    """
    height, width = _size(source, settings)
    content = cached(
        cache,
        "rewrite",
        (source.model.SerializeToString(), height, width, settings.output),
        lambda: _rewritten(source.model, height, width, settings.output),
    )
    model = onnx.load_model_from_string(content)
    facts = {item.key: item.value for item in model.metadata_props}
    scale, offset = json.loads(facts[_AFFINE_KEY])
    affine = ChannelAffine(tuple(scale), tuple(offset))
    del model.metadata_props[:]
    normalization = source.normalization.for_channels(len(scale))
    fused = model if fused_nodes(model) else None
    if fused is not None:
        plain = cached(
            cache, "plain", (content,), lambda: bytes(write_out(model).SerializeToString())
        )
        model = onnx.load_model_from_string(plain)
    return Prepared(
        model=model,
        spec=_input_spec(normalization, affine, (height, width), settings),
        had_sigmoid=facts[_SIGMOID_KEY] == "true",
        fused=fused,
    )


def _size(source: Source, settings: SourceSettings) -> tuple[int, int]:
    """Return the asked, fixed or default size, in this order."""
    if settings.imgsz is not None:
        return settings.imgsz
    shape = dimensions(source.model.graph.input[0]) or ()
    height, width = shape[2:] if len(shape) == 4 else (None, None)
    if height and width:
        return height, width
    if source.default_size_hw is None:
        raise UsageError(f"{source.network}: its height and width are symbolic; give --imgsz HxW")
    return source.default_size_hw


def _rewritten(model: onnx.ModelProto, height: int, width: int, output: str) -> bytes:
    plain, affine = rewrite(model, height, width)
    had_sigmoid = False
    if output != "logits":
        plain, had_sigmoid = strip_sigmoid(plain)
        if output == "probabilities" and not had_sigmoid:
            plain, had_sigmoid = append_logit(plain), True
    facts = {
        _AFFINE_KEY: json.dumps([affine.scale, affine.offset]),
        _SIGMOID_KEY: json.dumps(had_sigmoid),
    }
    plain = with_distinct_names(plain)
    onnx.helper.set_model_props(plain, facts)
    return bytes(plain.SerializeToString())


def _input_spec(
    normalization: Normalization,
    affine: ChannelAffine,
    size_hw: tuple[int, int],
    settings: SourceSettings,
) -> InputSpec:
    """Compose normalisation and the graph's own affine: one multiply-add for the runtime.

    Padding is zero after normalisation, which is the mean before it.
    """
    trained = ChannelAffine(
        tuple(1 / std for std in normalization.std),
        tuple(-m / s for m, s in zip(normalization.mean, normalization.std, strict=True)),
    )
    composed = trained.then(affine)
    return InputSpec(
        height=size_hw[0],
        width=size_hw[1],
        scale=composed.scale,
        offset=composed.offset,
        pad_level=normalization.mean,
        bit_depth=settings.bit_depth,
        fit=settings.fit,
        per_frame_max=normalization.per_frame_max,
    )
