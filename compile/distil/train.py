"""Supervised training on Lightning Fabric: one process by default, several devices by a flag.

What is validated and kept is a moving average of the weights. State is written after every epoch,
so a run that was killed goes on with `resume=True` as if nothing had happened.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from irstd.compile.checkpoint import (
    DEFAULT_INPUT_NORM_EPS,
    NetworkOptions,
    load_checkpoint,
    save_checkpoint,
)
from irstd.compile.distil.config import TrainConfig
from irstd.compile.distil.data import CropDataset, LabelledFrame, load_training, load_validation
from irstd.compile.distil.losses import Loss, weighted_loss
from irstd.compile.networks import NETWORKS
from irstd.errors import CheckpointError, UsageError
from irstd.files import atomic_open
from irstd.metrics import Scores, evaluate

STATE, BEST, LOG = "last.pt", "best.safetensors", "log.jsonl"
PAD_MULTIPLE_PX = 32


def distil(config: TrainConfig, *, resume: bool = False) -> Path:
    """Train a network and return the path of its best weights.

    Args:
        config: The run.
        resume: Go on from `config.out / last.pt` if it is there.

    Returns:
        Path of `best.safetensors`: the averaged weights of the epoch with the highest mean over
        the validation lists of (IoU + HSE) / 2.

    Raises:
        UsageError: There is a started run in `config.out` and `resume` is false.
        InputError: Data missing or unreadable.
        CheckpointError: `config.init` or the state does not fit.
    """
    state_path = config.out / STATE
    if state_path.exists() and not resume:
        raise UsageError(f"{config.out}: holds a started run; add --resume, or choose another out")
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.set_flush_denormal(True)
    fabric = Fabric(
        accelerator=config.accelerator, devices=config.devices, precision=config.precision
    )
    fabric.launch()
    fabric.seed_everything(config.seed, verbose=False)

    module, options = _new_module(config)
    module.to(memory_format=torch.channels_last)  # 1.4 times faster convolutions on a CPU
    average = torch.optim.swa_utils.AveragedModel(
        module,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(config.ema_decay),
        use_buffers=True,
    )
    average.to(fabric.device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    model, wrapped_optimizer = fabric.setup(module, optimizer)
    dataset = CropDataset(load_training(config.data), config)
    validation = {source.path.name: load_validation(source) for source in config.data}
    loader = _loader(fabric, dataset, config)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=config.learning_rate,
        total_steps=config.epochs * len(loader),
        pct_start=config.warmup_share,
    )
    parts = {
        "model": module,
        "average": average,
        "optimizer": optimizer,
        "schedule": schedule,
    }
    epoch, best = _restore(state_path, parts, fabric.device) if resume else (0, -1.0)
    loss = weighted_loss(config.loss)
    while epoch < config.epochs:
        dataset.epoch = epoch
        started = time.monotonic()
        mean_loss = _train_epoch(fabric, model, wrapped_optimizer, schedule, loader, loss, config,
                                 average, epoch)  # fmt: skip
        epoch += 1
        record: dict[str, Any] = {"epoch": epoch, "loss": mean_loss}
        if fabric.is_global_zero:
            if epoch % config.validate_every == 0 or epoch == config.epochs:
                scores = {
                    name: validate(average.module, frames, config.normalize)
                    for name, frames in validation.items()
                }
                merit = float(np.mean([(s.iou + s.hse) / 2 for s in scores.values()]))
                record["merit"] = merit
                record["validation"] = {name: vars(s) for name, s in scores.items()}
                if merit > best:
                    best = merit
                    weights = average.module.state_dict()
                    save_checkpoint(
                        config.out / BEST, config.network, options, weights, config.normalize
                    )
            record["seconds"] = time.monotonic() - started
            _save_state(state_path, parts, epoch, best)
            with (config.out / LOG).open("a", encoding="utf-8") as log:
                log.write(json.dumps(record) + "\n")
        fabric.barrier()
    return config.out / BEST


def validate(
    module: nn.Module, frames: list[LabelledFrame], normalize: tuple[float, float]
) -> Scores:
    """Score a module on whole frames, padded after normalisation to multiples of 32 px."""
    device = next(module.parameters()).device
    training = module.training
    module.eval()
    try:
        maps = [_probabilities(module, frame.image, normalize, device) for frame in frames]
    finally:
        module.train(training)
    return evaluate(maps, [frame.mask for frame in frames])


@torch.inference_mode()
def _probabilities(
    module: nn.Module, image: Any, normalize: tuple[float, float], device: torch.device
) -> np.ndarray[Any, np.dtype[np.float32]]:
    mean, std = normalize
    x = (torch.from_numpy(image.astype(np.float32))[None, None].to(device) - mean) / std
    height, width = image.shape
    x = F.pad(x, (0, -width % PAD_MULTIPLE_PX, 0, -height % PAD_MULTIPLE_PX))
    channels = next(p for p in module.parameters() if p.ndim == 4).shape[1]
    logits = module(x.expand(-1, channels, -1, -1))[0, 0, :height, :width]
    out: np.ndarray[Any, np.dtype[np.float32]] = torch.sigmoid(logits).cpu().numpy()
    return out


def _new_module(config: TrainConfig) -> tuple[nn.Module, NetworkOptions]:
    if config.init is not None:
        checkpoint = load_checkpoint(config.network, config.init)
        return checkpoint.module.train(), checkpoint.options
    options = NetworkOptions(config.in_channels, config.norm, DEFAULT_INPUT_NORM_EPS)
    return NETWORKS[config.network].build(**vars(options)), options


def _loader(fabric: Fabric, dataset: CropDataset, config: TrainConfig) -> Any:
    loader = DataLoader(dataset, batch_size=config.batch, shuffle=True, drop_last=True)
    if not len(loader):
        raise UsageError(f"batch {config.batch} is larger than the {len(dataset)} training frames")
    return fabric.setup_dataloaders(loader)


def _train_epoch(
    fabric: Fabric,
    model: Any,
    optimizer: Any,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    loader: Any,
    loss: Loss,
    config: TrainConfig,
    average: torch.optim.swa_utils.AveragedModel,
    epoch: int,
) -> float:
    mean, std = config.normalize
    torch.manual_seed(hash((config.seed, epoch)) % 2**31)  # order and dropout of this epoch
    total = torch.zeros((), device=fabric.device)
    model.train()
    for image, mask in _progress(loader, f"epoch {epoch + 1}/{config.epochs}", fabric):
        x = ((image - mean) / std).expand(-1, config.in_channels, -1, -1)
        value = loss(model(x.contiguous(memory_format=torch.channels_last)), mask)
        optimizer.zero_grad()
        fabric.backward(value)
        optimizer.step()
        schedule.step()
        average.update_parameters(model.module)
        total += value.detach()
    return float(total) / len(loader)


def _progress(loader: Any, title: str, fabric: Fabric) -> Iterator[tuple[Tensor, Tensor]]:
    hidden = None if fabric.is_global_zero else True  # None: shown on a terminal only
    yield from tqdm(loader, desc=title, disable=hidden, leave=False)


def _save_state(path: Path, parts: dict[str, Any], epoch: int, best: float) -> None:
    state = {name: part.state_dict() for name, part in parts.items()}
    with atomic_open(path) as file:
        torch.save(state | {"epoch": epoch, "best": best}, file)


def _restore(path: Path, parts: dict[str, Any], device: torch.device) -> tuple[int, float]:
    if not path.exists():
        return 0, -1.0
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        return int(state["epoch"]), float(state["best"])
    except Exception as error:
        raise CheckpointError(f"{path}: cannot be resumed ({error})") from error
