"""From SOURCE to a plain graph: shipped weights, a checkpoint, or any ONNX file."""

import dataclasses
import json
from pathlib import Path

import onnx

from irstd.compile.cache import cached
from irstd.compile.networks import NETWORKS, NetworkSpec
from irstd.compile.onnx_source import load_onnx_source
from irstd.compile.settings import Normalization, SourceSettings
from irstd.compile.shipped import read_shipped, shipped_names
from irstd.errors import CheckpointError, UsageError
from irstd.files import printable, sha256_of_file
from irstd.types import BIT_DEPTHS

NETWORK_KEY, NORMALIZE_KEY, LICENCE_KEY = "irstd.network", "irstd.normalize", "irstd.licence"
_WEIGHTS_BIT_DEPTH = BIT_DEPTHS[0]  # what shipped and public weights were trained on


@dataclasses.dataclass(frozen=True)
class Source:
    """A plain graph and what is known of its input.

    Attributes:
        network: Name of the network, or stem of the ONNX file.
        model: Opset 17 and up, H and W symbolic where the source allows.
        normalization: In grey levels of the build's bit depth.
        default_size_hw: Input size unless the build says otherwise; None: it must.
        global_pooling: None when not known.
        licences: What is known of the licence of weights and data.
    """

    network: str
    model: onnx.ModelProto
    normalization: Normalization
    default_size_hw: tuple[int, int] | None
    global_pooling: bool | None
    licences: dict[str, str]


def open_source(settings: SourceSettings, cache: Path | None = None) -> Source:
    """Load what `settings.name` names.

    Args:
        settings: Name, weights, normalisation.
        cache: Folder for stage results, None for none.

    Raises:
        UsageError: Neither a network nor an ONNX file, or a foreign source without --normalize.
        CheckpointError: `--weights` does not fit.
        ExportError: The ONNX file is not one image in, one mask out.
        MissingDependency: A checkpoint, and torch is not installed.
    """
    if settings.name in NETWORKS:
        spec = NETWORKS[settings.name]
        if settings.weights is None:
            return _shipped(spec, settings)
        return _from_checkpoint(spec, settings, settings.weights, cache)
    path = Path(settings.name)
    if path.suffix != ".onnx":
        raise UsageError(
            f"{settings.name!r} is neither a network ({', '.join(NETWORKS)}) nor an .onnx or "
            ".yaml file"
        )
    if settings.weights is not None:
        raise UsageError("--weights goes with a network name; an .onnx file holds its own weights")
    found = load_onnx_source(path, settings.imgsz)
    if settings.normalize is None:
        raise UsageError(
            f"{path}: say how its training normalised frames, in grey levels: "
            "--normalize MEAN,STD (or M1,M2,M3,S1,S2,S3, or max)"
        )
    return Source(
        printable(path.stem),
        found.model,
        settings.normalize,
        found.size_hw,
        found.pools_globally,
        {},
    )


def describe_model(
    model: onnx.ModelProto, network: str, normalize: tuple[float, float], licence: str
) -> onnx.ModelProto:
    """Return a copy of a graph that says what it is, as the shipped ones do."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    facts = {NETWORK_KEY: network, NORMALIZE_KEY: json.dumps(normalize), LICENCE_KEY: licence}
    onnx.helper.set_model_props(out, facts)
    return out


def _shipped(spec: NetworkSpec, settings: SourceSettings) -> Source:
    content = read_shipped(spec.name)
    if content is None:
        raise UsageError(
            f"no weights of {spec.name} are shipped (there are: "
            f"{', '.join(shipped_names()) or 'none'}); "
            "give them with --weights FILE"
        )
    model = onnx.load_model_from_string(content)
    facts = {item.key: item.value for item in model.metadata_props}
    mean, std = json.loads(facts[NORMALIZE_KEY])
    trained = Normalization((float(mean),), (float(std),))
    return Source(
        network=spec.name,
        model=model,
        normalization=settings.normalize or _at_depth(trained, settings.bit_depth),
        default_size_hw=spec.default_size_hw,
        global_pooling=spec.global_pooling,
        licences={"weights": facts[LICENCE_KEY]},
    )


def _from_checkpoint(
    spec: NetworkSpec, settings: SourceSettings, weights: Path, cache: Path | None
) -> Source:
    if not weights.is_file():
        raise CheckpointError(f"{weights}: no such file; wanted the weights of {spec.name}")
    digest = sha256_of_file(weights)
    eps = settings.input_norm_eps
    content = cached(
        cache,
        "export",
        (spec.name, digest, weights.suffix, eps),
        lambda: _export(spec, weights, eps),
    )
    model = onnx.load_model_from_string(content)
    facts = {item.key: item.value for item in model.metadata_props}
    normalization = settings.normalize
    if normalization is None and NORMALIZE_KEY in facts:
        mean, std = json.loads(facts[NORMALIZE_KEY])
        normalization = _at_depth(Normalization((mean,), (std,)), settings.bit_depth)
    if normalization is None:
        raise UsageError(
            f"{weights}: the file does not say how its training normalised frames; give it in "
            "grey levels: --normalize MEAN,STD (or M1,M2,M3,S1,S2,S3, or max)"
        )
    return Source(spec.name, model, normalization, spec.default_size_hw, spec.global_pooling, {})


def _export(spec: NetworkSpec, weights: Path, input_norm_eps: float) -> bytes:
    from irstd.compile.checkpoint import load_checkpoint
    from irstd.compile.export import export

    checkpoint = load_checkpoint(spec.name, weights, input_norm_eps=input_norm_eps)
    model = export(checkpoint.module, checkpoint.options.in_channels)
    if checkpoint.normalize is not None:
        facts = {NORMALIZE_KEY: json.dumps(checkpoint.normalize)}
        onnx.helper.set_model_props(model, facts)
    return bytes(model.SerializeToString())


def _at_depth(normalization: Normalization, bit_depth: int) -> Normalization:
    """Stretch what was learnt on 8-bit frames over the grey levels of another depth."""
    return normalization.scaled(((1 << bit_depth) - 1) / ((1 << _WEIGHTS_BIT_DEPTH) - 1))
