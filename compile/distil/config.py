"""What a training run needs, read from YAML; unknown keys are refused."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from irstd.compile.networks import NETWORKS
from irstd.errors import UsageError
from irstd.files import check_writable

LOSSES = ("soft_iou", "batch_iou", "bce", "eedm")

# Lowest and highest allowed value of every number, inclusive.
RANGES: dict[str, tuple[float, float]] = {
    "crop_px": (1, 8192),
    "target_share": (0, 1),
    "paste_share": (0, 1),
    "batch": (1, 65_536),
    "epochs": (1, 1_000_000),
    "learning_rate": (1e-9, 10),
    "weight_decay": (0, 10),
    "warmup_share": (0, 0.9),
    "ema_decay": (0, 0.999999),
    "validate_every": (1, 1_000_000),
    "seed": (0, 2**32 - 1),
    "devices": (1, 4096),
    "threads": (0, 4096),
}
SCALE_RANGE = (0.1, 10.0)
MEAN_RANGE = (-65_535.0, 65_535.0)
STD_RANGE = (1e-3, 65_535.0)
LOSS_WEIGHT_RANGE = (1e-6, 1e6)
CHOICES: dict[str, tuple[Any, ...]] = {
    "network": tuple(NETWORKS),
    "norm": ("batch", "group"),
    "in_channels": (1, 3),
    "accelerator": ("auto", "cpu", "cuda", "mps"),
    "precision": ("32-true", "16-mixed", "bf16-mixed"),
}


@dataclasses.dataclass(frozen=True)
class DataSource:
    """One labelled data folder and the lists to train and validate on.

    Attributes:
        path: Folder with `images/` and `masks/`.
        train_list: Stems to train on; stems in `val_list` are always left out of them.
        val_list: Stems to choose the best epoch by.
    """

    path: Path
    train_list: Path
    val_list: Path


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Attributes:
        network: A key of NETWORKS.
        data: Training data, united.
        out: Folder for `last.pt` (resumable state), `best.safetensors`, `last.safetensors` (of the
            last validation, to go on from with `init`) and `log.jsonl`.
        norm: Norm of the fusion blocks, "batch" or "group".
        in_channels: Image channels, 1 or 3.
        normalize: (mean, std) in grey levels.
        crop_px: Side of the square training crops.
        target_share: Share of crops that are placed to hold a target.
        paste_share: Share of crops that get targets of other frames of their folder pasted in.
        scale_range: Random zoom of a crop, lowest and highest factor.
        batch: Crops a step and device.
        epochs: Passes over the united training lists.
        learning_rate: Peak of the one-cycle schedule (AdamW).
        weight_decay: Of AdamW.
        warmup_share: Share of the steps in which the learning rate rises.
        ema_decay: Decay of the weights' moving average, which is what is validated and kept.
        loss: Weight of each loss term; keys from LOSSES.
        validate_every: Epochs between validations.
        seed: Of weights, order and augmentation.
        init: Weights to start from, a safetensors file of this SDK.
        accelerator: "auto", "cpu", "cuda" or "mps".
        devices: How many of them.
        precision: "32-true", "16-mixed" or "bf16-mixed".
        threads: CPU threads, 0 for torch's own choice.
    """

    network: str
    data: tuple[DataSource, ...]
    out: Path
    norm: str = "batch"
    in_channels: int = 1
    normalize: tuple[float, float] = (95.0, 41.5)
    crop_px: int = 256
    target_share: float = 0.8
    paste_share: float = 0.0
    scale_range: tuple[float, float] = (0.8, 1.25)
    batch: int = 8
    epochs: int = 200
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    warmup_share: float = 0.1
    ema_decay: float = 0.998
    loss: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"soft_iou": 1.0})
    validate_every: int = 5
    seed: int = 0
    init: Path | None = None
    accelerator: str = "auto"
    devices: int = 1
    precision: str = "32-true"
    threads: int = 0


def load_config(path: Path) -> TrainConfig:
    """Read a training configuration.

    Relative paths in it are relative to the file.

    Raises:
        UsageError: Unreadable, a key unknown or missing, a value of the wrong kind or out of
            range, or data that is not there.
    """
    raw = _read_yaml(path)
    fields = {field.name: field for field in dataclasses.fields(TrainConfig)}
    _check_keys(path, "", raw, set(fields), {"network", "data", "out"})
    values: dict[str, Any] = {key: raw[key] for key in raw if raw[key] is not None}
    for key, value in values.items():
        _check_kind(path, key, value, fields[key].type)
    values["data"] = tuple(_data_source(path, item) for item in _as_list(path, raw["data"]))
    for key in ("out", "init"):
        if key in values:
            values[key] = path.parent / _text(path, key, values[key])
    for key in ("normalize", "scale_range"):
        if key in values:
            values[key] = _pair(path, key, values[key])
    if missing := {"network", "out"} - set(values):
        raise UsageError(f"{path}: {min(missing)} is empty")
    config = TrainConfig(**values)
    _check_values(path, config)
    return config


def _read_yaml(path: Path) -> dict[Any, Any]:
    try:
        raw = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path}: cannot be read as YAML ({reason})") from error
    if not isinstance(raw, dict):
        raise UsageError(f"{path}: wanted a mapping of settings, got {type(raw).__name__}")
    return raw


def _check_kind(path: Path, key: str, value: Any, kind: Any) -> None:
    if kind is str:
        _text(path, key, value)
    elif kind in (int, float) and not _is_number(value):
        hint = " (YAML reads exponents as 2.0e-3, not 2e-3)" if isinstance(value, str) else ""
        raise UsageError(f"{path}: {key} must be a number, got {value!r}{hint}")
    elif kind is int and not isinstance(value, int):
        raise UsageError(f"{path}: {key} must be a whole number, got {value!r}")


def _check_values(path: Path, config: TrainConfig) -> None:
    for key, choices in CHOICES.items():
        if getattr(config, key) not in choices:
            known = ", ".join(map(str, choices))
            raise UsageError(f"{path}: {key} must be one of {known}, got {getattr(config, key)!r}")
    for key, bounds in RANGES.items():
        _check_range(path, key, getattr(config, key), bounds)
    mean, std = config.normalize
    _check_range(path, "the mean of normalize", mean, MEAN_RANGE)
    _check_range(path, "the standard deviation of normalize", std, STD_RANGE)
    low, high = config.scale_range
    _check_range(path, "the lower factor of scale_range", low, SCALE_RANGE)
    _check_range(path, "the upper factor of scale_range", high, (low, SCALE_RANGE[1]))
    stride = NETWORKS[config.network].stride_px
    if config.crop_px % stride:
        raise UsageError(
            f"{path}: crop_px must be a multiple of {stride} for {config.network}, "
            f"got {config.crop_px}"
        )
    _check_loss(path, config.loss)
    if config.init is not None and not config.init.is_file():
        raise UsageError(f"{path}: init: {config.init} is no file; wanted weights to start from")
    check_writable(config.out / "log.jsonl")


def _check_range(path: Path, what: str, value: float, bounds: tuple[float, float]) -> None:
    low, high = bounds
    if not low <= value <= high:  # also NaN
        raise UsageError(f"{path}: {what} must be within {low:g} and {high:g}, got {value!r}")


def _check_loss(path: Path, loss: Any) -> None:
    if not isinstance(loss, dict) or not loss:
        raise UsageError(
            f"{path}: loss must map terms to weights, such as {{soft_iou: 1.0}}, got {loss!r}"
        )
    for term, weight in loss.items():
        if term not in LOSSES:
            raise UsageError(f"{path}: unknown loss {term!r}; one of {', '.join(LOSSES)}")
        if not _is_number(weight):
            raise UsageError(f"{path}: the weight of loss {term} must be a number, got {weight!r}")
        _check_range(path, f"the weight of loss {term}", weight, LOSS_WEIGHT_RANGE)


def _data_source(path: Path, item: Any) -> DataSource:
    if not isinstance(item, dict):
        raise UsageError(f"{path}: each entry of data is a mapping, got {item!r}")
    _check_keys(path, "data.", item, {"path", "train_list", "val_list"}, {"path"})
    folder = path.parent / _text(path, "data.path", item["path"])
    if not folder.is_dir():
        raise UsageError(f"{path}: data.path {folder}: no such folder")
    train = folder / _text(path, "data.train_list", item.get("train_list", "train.txt"))
    val = folder / _text(path, "data.val_list", item.get("val_list", "val.txt"))
    for file in (train, val):
        if not file.is_file():
            raise UsageError(f"{path}: {file}: no such list; wanted one image stem a line")
    return DataSource(folder, train, val)


def _as_list(path: Path, value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise UsageError(f"{path}: data must be a list of folders, got {value!r}")
    return value


def _pair(path: Path, key: str, value: Any) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2 or not all(map(_is_number, value)):
        raise UsageError(f"{path}: {key} must be a list of two numbers, got {value!r}")
    try:
        return float(value[0]), float(value[1])
    except OverflowError as error:
        raise UsageError(f"{path}: {key} holds a number that is too large") from error


def _text(path: Path, key: str, value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise UsageError(f"{path}: {key} must be text, got {value!r}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_keys(
    path: Path, prefix: str, raw: Mapping[Any, Any], known: set[str], required: set[str]
) -> None:
    if unknown := sorted(str(key) for key in raw if key not in known):
        raise UsageError(
            f"{path}: unknown key {prefix}{unknown[0]}; known: {', '.join(sorted(known))}"
        )
    if missing := sorted(required - set(raw)):
        raise UsageError(f"{path}: missing key {prefix}{missing[0]}")
