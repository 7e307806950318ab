"""Weights files: ours (safetensors with metadata) and public ones (recognised by their keys).

No pickle is ever executed: `.pt`, `.pth`, `.pkl` and `.tar` files go through torch's
`weights_only` reader, which knows tensors and containers and nothing else.
"""

import dataclasses
import json
import math
import pickle
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from irstd.compile.networks import NETWORKS, NetworkSpec
from irstd.errors import CheckpointError, MissingDependency, UsageError
from irstd.files import write_atomic

if TYPE_CHECKING:
    from torch import Tensor, nn

LAYOUT = "irstd-1"
PICKLE_SUFFIXES = (".pt", ".pth", ".pkl", ".tar")
PUBLIC_PREFIXES = ("model.", "module.")
DEFAULT_INPUT_NORM_EPS = 1e-5
NORMS = ("batch", "group")


@dataclasses.dataclass(frozen=True)
class NetworkOptions:
    """How a network is built so that a checkpoint fits it.

    Attributes:
        in_channels: Image channels, 1 or 3.
        norm: Norm of the fusion blocks, "batch" or "group".
        input_norm_eps: eps of the BatchNorm on the raw input.
    """

    in_channels: int
    norm: str
    input_norm_eps: float


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A network with its weights.

    Attributes:
        network: Key in NETWORKS.
        options: How it was built.
        module: The torch module, in eval mode.
        normalize: (mean, std) in grey levels it was trained with; None when the file does not say.
    """

    network: str
    options: NetworkOptions
    module: "nn.Module"
    normalize: tuple[float, float] | None


def load_checkpoint(
    network: str, path: Path, *, input_norm_eps: float = DEFAULT_INPUT_NORM_EPS
) -> Checkpoint:
    """Build `network` and load `path` into it, strictly.

    Args:
        network: A key of NETWORKS.
        path: `.safetensors` of this SDK, or a public `.pt/.pth/.pkl/.tar/.safetensors` file whose
            keys (with or without the prefix `model.` or `module.`) are those of the network.
        input_norm_eps: For a public file, the eps of the BatchNorm on the raw input. Some public
            ports built it with 0.9, meant as its momentum, and the keys of a file cannot tell
            (docs/adr/0008-input-norm-eps.md). Our own files say it themselves.

    Returns:
        The checkpoint, its module in eval mode on the CPU.

    Raises:
        UsageError: Unknown network.
        CheckpointError: Missing or unreadable file, a pickle that holds more than tensors, keys or
            shapes of another network, or weights that are not finite.
        MissingDependency: torch is not installed.
    """
    spec = _spec(network)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; wanted the weights of {network}")
    tensors, metadata = _read(path)
    if "layout" in metadata:
        options, normalize = _described(path, network, metadata)
    else:
        tensors = _strip_public_names(tensors, spec)
        options, normalize = _recognise(tensors, input_norm_eps), None
    module = spec.build(**dataclasses.asdict(options))
    _load_strictly(module, tensors, path, spec)
    return Checkpoint(network, options, module.eval(), normalize)


def save_checkpoint(
    path: Path,
    network: str,
    options: NetworkOptions,
    tensors: Mapping[str, "Tensor"],
    normalize: tuple[float, float],
) -> None:
    """Write weights as safetensors, with all that is needed to build and feed the network."""
    from safetensors.torch import save

    metadata = {
        "layout": LAYOUT,
        "network": network,
        "options": json.dumps(dataclasses.asdict(options)),
        "normalize": json.dumps(list(normalize)),
    }
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomic(path, save(plain, metadata=metadata))


def _spec(network: str) -> NetworkSpec:
    if network not in NETWORKS:
        raise UsageError(f"unknown network {network!r}; one of {', '.join(NETWORKS)}")
    return NETWORKS[network]


def _read(path: Path) -> tuple[dict[str, "Tensor"], dict[str, str]]:
    try:
        import torch
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise MissingDependency(
            f"reading a checkpoint needs {error.name}: pip install 'irstd-sdk[train]'"
        ) from error
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                return tensors, dict(file.metadata() or {})
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: not a sound safetensors file ({error})") from error
    if path.suffix not in PICKLE_SUFFIXES:
        known = ", ".join((".safetensors", *PICKLE_SUFFIXES))
        raise CheckpointError(f"{path}: a weights file ends in one of {known}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # guesses at the pickle protocol of a hostile file
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # Not chained: torch's own message advises to switch the protection off.
        raise CheckpointError(
            f"{path}: refused, it is not a plain mapping of tensors, and loading anything else "
            "could run code; ask its author for a state_dict or a safetensors file"
        ) from None
    except Exception as error:  # torch reports damage with many exception types
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path}: not a readable checkpoint ({reason})") from error
    return _state_dict(content, path), {}


def _state_dict(content: object, path: Path) -> dict[str, "Tensor"]:
    """Find the mapping of tensors in what a public checkpoint holds."""
    import torch

    candidates = [content]
    if isinstance(content, dict):
        candidates += [content[key] for key in ("state_dict", "model", "net") if key in content]
    for candidate in candidates:
        named = candidate.items() if isinstance(candidate, dict) else ()
        if named and all(isinstance(value, torch.Tensor) for _, value in named):
            return {str(name): tensor for name, tensor in named}
    raise CheckpointError(f"{path}: no state_dict in it; wanted a mapping of names to tensors")


def _strip_public_names(tensors: Mapping[str, "Tensor"], spec: NetworkSpec) -> dict[str, "Tensor"]:
    """Drop the wrappers' prefixes, and modules that never run."""
    plain = dict(tensors)
    while prefix := next((p for p in PUBLIC_PREFIXES if plain and _all_have(p, plain)), ""):
        plain = {name.removeprefix(prefix): tensor for name, tensor in plain.items()}
    return {name: t for name, t in plain.items() if not name.startswith(spec.dead_keys)}


def _all_have(prefix: str, names: Iterable[str]) -> bool:
    return all(name.startswith(prefix) for name in names)


def _recognise(tensors: Mapping[str, "Tensor"], input_norm_eps: float) -> NetworkOptions:
    """Tell a public layout's variant by its keys and shapes."""
    fused_stats = any(k.startswith("fuse") and k.endswith("running_mean") for k in tensors)
    coloured = any(t.ndim == 4 and t.shape[1] == 3 for t in tensors.values())
    return NetworkOptions(
        in_channels=3 if coloured else 1,
        norm="batch" if fused_stats else "group",
        input_norm_eps=input_norm_eps,
    )


def _described(
    path: Path, network: str, metadata: Mapping[str, str]
) -> tuple[NetworkOptions, tuple[float, float]]:
    """Read what our own files say of themselves."""
    if metadata["layout"] != LAYOUT:
        raise CheckpointError(
            f"{path}: layout {metadata['layout']!r}, this version reads {LAYOUT!r}; "
            "update irstd-sdk or export the weights again"
        )
    if metadata.get("network") != network:
        raise CheckpointError(
            f"{path}: weights of {metadata.get('network')!r}, wanted {network!r}; "
            f"name the network that the file says"
        )
    try:
        options = NetworkOptions(**json.loads(metadata["options"]))
        mean, std = (float(value) for value in json.loads(metadata["normalize"]))
        eps = float(options.input_norm_eps)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: metadata damaged ({error})") from error
    known = options.in_channels in (1, 3) and options.norm in NORMS and 0 < eps < 1
    if not (known and math.isfinite(mean) and 0 < std < math.inf):
        raise CheckpointError(f"{path}: metadata out of range ({options}, mean {mean}, std {std})")
    return options, (mean, std)


def _load_strictly(
    module: "nn.Module", tensors: Mapping[str, "Tensor"], path: Path, spec: NetworkSpec
) -> None:
    wanted = module.state_dict()
    # Older files lack this counter, which inference does not read.
    missing = [k for k in wanted if k not in tensors and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in tensors if k not in wanted]
    shapes = [k for k in tensors if k in wanted and tensors[k].shape != wanted[k].shape]
    problems = [
        f"{len(keys)} {what}, first {keys[0]!r}"
        for what, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", shapes),
        )
        if keys
    ]
    if problems:
        others = ", ".join(name for name in NETWORKS if name != spec.name)
        raise CheckpointError(
            f"{path}: does not fit {spec.name}: {'; '.join(problems)}. "
            f"Is it of another network ({others})?"
        )
    for name, tensor in tensors.items():
        if not _holds_numbers(tensor, counter=not wanted[name].is_floating_point()):
            raise CheckpointError(
                f"{path}: {name} is {tensor.dtype} with NaN, infinity or no plain values; "
                "wanted finite floating-point weights"
            )
    module.load_state_dict(dict(tensors), strict=False)


def _holds_numbers(tensor: "Tensor", *, counter: bool) -> bool:
    import torch

    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        return False
    if counter:
        return not tensor.is_complex()
    floats = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    return tensor.dtype in floats and bool(torch.isfinite(tensor).all())
