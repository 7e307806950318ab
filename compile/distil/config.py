"""What a training run needs, read from YAML; unknown keys are refused."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from irstd.errors import UsageError

LOSSES = ("soft_iou", "bce", "eedm")


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
        out: Folder for `last.pt` (resumable state), `best.safetensors` and `log.jsonl`.
        norm: Norm of the fusion blocks, "batch" or "group".
        in_channels: Image channels, 1 or 3.
        normalize: (mean, std) in grey levels.
        crop_px: Side of the square training crops.
        target_share: Share of crops that are placed to hold a target.
        scale_range: Random zoom of a crop, lowest and highest factor.
        batch: Crops a step and device.
        epochs: Passes over the united training lists.
        learning_rate: Peak of the one-cycle schedule (AdamW).
        weight_decay: Of AdamW.
        warmup_share: Share of the steps in which the learning rate rises.
        ema_decay: Decay of the weights' moving average, which is what is validated and kept.
        loss: Weight of each loss term; keys from soft_iou, bce, eedm.
        validate_every: Epochs between validations.
        seed: Of weights, order and augmentation.
        init: Weights to start from, a safetensors file of this SDK.
        accelerator, devices, precision: Passed to Lightning Fabric.
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
        UsageError: Unreadable, a key unknown or missing, or a value of the wrong kind.
    """
    try:
        raw = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: cannot be read as YAML ({error})") from error
    if not isinstance(raw, dict):
        raise UsageError(f"{path}: wanted a mapping of settings, got {type(raw).__name__}")
    fields = {field.name: field for field in dataclasses.fields(TrainConfig)}
    _check_keys(path, "", raw, set(fields), {"network", "data", "out"})
    values: dict[str, Any] = dict(raw)
    values["data"] = tuple(_data_source(path, item) for item in _as_list(path, raw["data"]))
    values["out"] = path.parent / str(raw["out"])
    if raw.get("init") is not None:
        values["init"] = path.parent / str(raw["init"])
    for key in ("normalize", "scale_range"):
        if key in raw:
            values[key] = _pair(path, key, raw[key])
    for key, value in values.items():
        kind = fields[key].type
        if kind in (int, float) and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise UsageError(f"{path}: {key} must be a number, got {value!r}")
        if kind is int and not isinstance(value, int):
            raise UsageError(f"{path}: {key} must be a whole number, got {value!r}")
        if kind is str and not isinstance(value, str):
            raise UsageError(f"{path}: {key} must be text, got {value!r}")
    config = TrainConfig(**values)
    _check_ranges(path, config)
    return config


def _check_ranges(path: Path, config: TrainConfig) -> None:
    from irstd.compile.networks import NETWORKS

    positive = ("crop_px", "batch", "epochs", "learning_rate", "validate_every", "devices")
    for key in positive:
        if getattr(config, key) <= 0:
            raise UsageError(f"{path}: {key} must be above 0, got {getattr(config, key)}")
    for key in ("target_share", "warmup_share", "ema_decay"):
        if not 0 <= getattr(config, key) <= 1:
            raise UsageError(f"{path}: {key} must be within [0, 1], got {getattr(config, key)}")
    if config.network not in NETWORKS:
        raise UsageError(f"{path}: unknown network {config.network!r}; one of {list(NETWORKS)}")
    if config.norm not in ("batch", "group"):
        raise UsageError(f"{path}: norm must be batch or group, got {config.norm!r}")
    if config.in_channels not in (1, 3):
        raise UsageError(f"{path}: in_channels must be 1 or 3, got {config.in_channels}")
    if not 0 < config.scale_range[0] <= config.scale_range[1]:
        raise UsageError(f"{path}: scale_range must be two rising factors above 0")
    if config.normalize[1] <= 0:
        raise UsageError(f"{path}: normalize is mean, std with std above 0")
    if config.crop_px % NETWORKS[config.network].stride_px:
        stride = NETWORKS[config.network].stride_px
        raise UsageError(f"{path}: crop_px must be a multiple of {stride} for {config.network}")
    if not isinstance(config.loss, dict) or not config.loss:
        raise UsageError(f"{path}: loss maps terms to weights, such as {{soft_iou: 1.0}}")
    for term, weight in config.loss.items():
        if term not in LOSSES:
            raise UsageError(f"{path}: unknown loss {term!r}; one of {list(LOSSES)}")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or weight <= 0:
            raise UsageError(f"{path}: the weight of {term} must be a number above 0")


def _data_source(path: Path, item: Any) -> DataSource:
    if not isinstance(item, dict):
        raise UsageError(f"{path}: each entry of data is a mapping, got {item!r}")
    _check_keys(path, "data.", item, {"path", "train_list", "val_list"}, {"path"})
    folder = path.parent / str(item["path"])
    train, val = item.get("train_list", "train.txt"), item.get("val_list", "val.txt")
    return DataSource(folder, folder / str(train), folder / str(val))


def _as_list(path: Path, value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise UsageError(f"{path}: data is a list of folders, got {value!r}")
    return value


def _pair(path: Path, key: str, value: Any) -> tuple[float, float]:
    good = isinstance(value, list) and len(value) == 2
    if not good or any(isinstance(v, bool) or not isinstance(v, int | float) for v in value):
        raise UsageError(f"{path}: {key} must be a list of two numbers, got {value!r}")
    return float(value[0]), float(value[1])


def _check_keys(
    path: Path, prefix: str, raw: Mapping[str, Any], known: set[str], required: set[str]
) -> None:
    if unknown := sorted(str(key) for key in raw if key not in known):
        raise UsageError(f"{path}: unknown key {prefix}{unknown[0]}; known: {sorted(known)}")
    if missing := sorted(required - set(raw)):
        raise UsageError(f"{path}: missing key {prefix}{missing[0]}")
