"""Supervised training on Lightning Fabric: one process by default, several devices by a flag.

What is validated and kept is a moving average of the weights. State is written after every epoch,
so a run that was killed goes on with `resume=True` as if nothing had happened.
"""

import contextlib
import dataclasses
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
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
from irstd.errors import CheckpointError, DeviceError, UsageError
from irstd.files import atomic_open
from irstd.metrics import Scores, evaluate

STATE, LOG = "last.pt", "log.jsonl"
BEST, LAST = "best.safetensors", "last.safetensors"
PAD_MULTIPLE_PX = 32
NO_MERIT = -1.0  # below every real one, so that the first validation is kept


@dataclasses.dataclass(frozen=True)
class _Run:
    """What a step reads and changes.

    Attributes:
        model: The module as Fabric wrapped it; `module` is the same weights unwrapped.
        average: Moving average of the weights.
        fabric_optimizer: `optimizer` as Fabric wrapped it.
        loader: Batches of `dataset`, in a new order each epoch.
    """

    config: TrainConfig
    fabric: Fabric
    module: nn.Module
    model: nn.Module
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    fabric_optimizer: Any
    schedule: OneCycleLR
    dataset: CropDataset
    loader: Any
    loss: Loss
    quiet: bool

    @property
    def resumable(self) -> dict[str, Any]:
        """The parts whose state a resumed run needs, by their names in the state file."""
        return {
            "model": self.module,
            "average": self.average,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
        }


def distil(config: TrainConfig, *, resume: bool = False, quiet: bool = False) -> Path:
    """Train a network and return the path of its best weights.

    Args:
        config: The run.
        resume: Go on from `config.out / last.pt` if it is there.
        quiet: Show no progress; the log in `config.out` is written all the same.

    Returns:
        Path of `best.safetensors`: the averaged weights of the epoch with the highest mean over
        the validation lists of (IoU + HSE) / 2.

    Raises:
        UsageError: There is a started run in `config.out` and `resume` is false, its settings were
            others, or the loss diverged.
        InputError: Data missing or unreadable.
        CheckpointError: `config.init` or the state does not fit.
        DeviceError: The accelerator is not there.
    """
    state_path = config.out / STATE
    if state_path.exists() and not resume:
        raise UsageError(f"{config.out}: holds a started run; add --resume, or choose another out")
    with _fast_arithmetic(config.threads):
        return _train(config, quiet)


def _train(config: TrainConfig, quiet: bool) -> Path:
    state_path = config.out / STATE
    training = load_training(config.data)
    validation = {source.path.name: load_validation(source) for source in config.data}
    options, run = _prepare(config, training, quiet)
    epoch, best = _restore(state_path, run) if state_path.exists() else (0, NO_MERIT)
    while epoch < config.epochs:
        started = time.monotonic()
        mean_loss = _train_epoch(run, epoch)
        epoch += 1
        record: dict[str, Any] = {"epoch": epoch, "loss": mean_loss}
        if run.fabric.is_global_zero:
            if epoch % config.validate_every == 0 or epoch == config.epochs:
                scores = _validate_all(run, validation)
                record["merit"] = float(np.mean([(s.iou + s.hse) / 2 for s in scores.values()]))
                record["validation"] = {name: vars(s) for name, s in scores.items()}
                kept = (LAST, BEST) if record["merit"] > best else (LAST,)
                best = max(best, record["merit"])
                weights = run.average.module.state_dict()
                for name in kept:
                    path = config.out / name
                    save_checkpoint(path, config.network, options, weights, config.normalize)
            record["seconds"] = time.monotonic() - started
            _save_state(state_path, run, epoch, best)
            _log_record(config.out / LOG, record, fresh=epoch == 1, quiet=quiet)
        run.fabric.barrier()
    return config.out / BEST


def validate(
    module: nn.Module, frames: Sequence[LabelledFrame], normalize: tuple[float, float]
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
    module: nn.Module,
    image: NDArray[np.uint8] | NDArray[np.uint16],
    normalize: tuple[float, float],
    device: torch.device,
) -> NDArray[np.float32]:
    mean, std = normalize
    x = (torch.from_numpy(image.astype(np.float32))[None, None].to(device) - mean) / std
    height, width = image.shape
    x = F.pad(x, (0, -width % PAD_MULTIPLE_PX, 0, -height % PAD_MULTIPLE_PX))
    channels = next(p for p in module.parameters() if p.ndim == 4).shape[1]
    logits = module(x.expand(-1, channels, -1, -1))[0, 0, :height, :width]
    out: NDArray[np.float32] = torch.sigmoid(logits).float().cpu().numpy()
    return out


@contextlib.contextmanager
def _fast_arithmetic(threads: int) -> Iterator[None]:
    """Use that many threads and no denormal numbers, which are slow; both settings are global."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)


def _prepare(
    config: TrainConfig, frames: list[LabelledFrame], quiet: bool
) -> tuple[NetworkOptions, _Run]:
    """Build everything of a run at its start."""
    fabric = _launch(config)
    options, module = _new_module(config)
    _use_channels_last(module)
    update = get_ema_multi_avg_fn(config.ema_decay)  # type: ignore[no-untyped-call]
    average = AveragedModel(module, multi_avg_fn=update, use_buffers=True).to(fabric.device)
    _use_channels_last(average)
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    model, fabric_optimizer = fabric.setup(module, optimizer)
    dataset = CropDataset(frames, config)
    loader = _loader(fabric, dataset, config)
    steps = config.epochs * len(loader)
    # OneCycleLR divides by the length of a rise that ends at its first step.
    rise = config.warmup_share if config.warmup_share * steps > 1 else 0.0
    schedule = OneCycleLR(optimizer, max_lr=config.learning_rate, total_steps=steps, pct_start=rise)
    loss = weighted_loss(config.loss)
    return options, _Run(
        config, fabric, module, model, average, optimizer, fabric_optimizer, schedule, dataset,
        loader, loss, quiet,
    )  # fmt: skip


def _use_channels_last(module: nn.Module) -> None:
    """Lay out the weights so that convolutions on a CPU are 1.4 times faster."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _launch(config: TrainConfig) -> Fabric:
    precision: Any = config.precision  # one of CHOICES["precision"]
    try:
        fabric = Fabric(accelerator=config.accelerator, devices=config.devices, precision=precision)
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise DeviceError(
            f"{config.devices} x {config.accelerator}: {reason} Set accelerator and devices to "
            "what this machine has, or leave them out"
        ) from error
    fabric.launch()
    fabric.seed_everything(config.seed, verbose=False)
    return fabric


def _new_module(config: TrainConfig) -> tuple[NetworkOptions, nn.Module]:
    options = NetworkOptions(config.in_channels, config.norm, DEFAULT_INPUT_NORM_EPS)
    if config.init is None:
        return options, NETWORKS[config.network].build(**vars(options))
    start = load_checkpoint(config.network, config.init)
    got = (start.options.in_channels, start.options.norm)
    if got != (config.in_channels, config.norm):
        raise UsageError(
            f"{config.init}: in_channels and norm are {got}, the configuration says "
            f"{(config.in_channels, config.norm)}; make them agree"
        )
    return start.options, start.module.train()


def _loader(fabric: Fabric, dataset: CropDataset, config: TrainConfig) -> Any:
    loader = DataLoader(dataset, batch_size=config.batch, shuffle=True, drop_last=True)
    if not len(loader):
        raise UsageError(f"batch {config.batch} is larger than the {len(dataset)} training frames")
    return fabric.setup_dataloaders(loader)


def _train_epoch(run: _Run, epoch: int) -> float:
    """Train one epoch and return its mean loss."""
    config, fabric = run.config, run.fabric
    mean, std = config.normalize
    run.dataset.epoch = epoch
    # Order and dropout depend on the epoch alone, so that a resumed run repeats them.
    torch.manual_seed(int(np.random.SeedSequence((config.seed, epoch)).generate_state(1)[0]))
    total = torch.zeros((), device=fabric.device)
    run.model.train()
    for image, mask in _progress(run, f"epoch {epoch + 1}/{config.epochs}"):
        x = ((image - mean) / std).expand(-1, config.in_channels, -1, -1)
        value = run.loss(run.model(x.contiguous(memory_format=torch.channels_last)), mask)
        run.optimizer.zero_grad()
        fabric.backward(value)
        run.fabric_optimizer.step()
        run.schedule.step()
        run.average.update_parameters(run.module)
        total += value.detach()
    mean_loss = float(torch.as_tensor(fabric.all_reduce(total / len(run.loader))))
    if not math.isfinite(mean_loss):
        raise UsageError(
            f"the loss became {mean_loss} in epoch {epoch + 1}; lower learning_rate "
            f"(got {config.learning_rate:g}) and start again in another out"
        )
    return mean_loss


def _validate_all(run: _Run, validation: dict[str, list[LabelledFrame]]) -> dict[str, Scores]:
    averaged, normalize = run.average.module, run.config.normalize
    return {name: validate(averaged, frames, normalize) for name, frames in validation.items()}


def _progress(run: _Run, title: str) -> Iterator[tuple[Tensor, Tensor]]:
    hidden = True if run.quiet or not run.fabric.is_global_zero else None  # None: on terminals
    yield from tqdm(run.loader, desc=title, disable=hidden, leave=False)


def _log_record(path: Path, record: dict[str, Any], *, fresh: bool, quiet: bool) -> None:
    """Append one line an epoch to the log, and to standard error where it is no terminal."""
    line = json.dumps(record)
    with path.open("w" if fresh else "a", encoding="utf-8") as log:
        log.write(line + "\n")
    if not quiet and not sys.stderr.isatty():
        print(line, file=sys.stderr, flush=True)


def _save_state(path: Path, run: _Run, epoch: int, best: float) -> None:
    state = {name: part.state_dict() for name, part in run.resumable.items()}
    with atomic_open(path) as file:
        torch.save(state | {"epoch": epoch, "best": best, "settings": _settings(run)}, file)


def _restore(path: Path, run: _Run) -> tuple[int, float]:
    """Load the state of a started run; return the epochs it has done and its best merit."""
    steps = run.schedule.total_steps
    try:
        state = torch.load(path, map_location=run.fabric.device, weights_only=True)
        settings = state.get("settings", {})  # states of the first trainings lack it
        epoch, best = int(state["epoch"]), float(state["best"])
    except Exception as error:  # torch reports damage with many exception types
        raise CheckpointError(f"{path}: cannot be resumed ({type(error).__name__})") from error
    for key, now in _settings(run).items():
        if key in settings and settings[key] != now:
            raise UsageError(
                f"{path}: was started with {key} {settings[key]}, the configuration says {now}; "
                "set it back, or choose another out"
            )
    try:
        for name, part in run.resumable.items():
            part.load_state_dict(state[name])
    except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: does not fit this configuration ({type(error).__name__}); choose another out"
        ) from error
    if run.schedule.total_steps != steps:
        raise UsageError(
            f"{path}: was started for {run.schedule.total_steps} steps, the configuration gives "
            f"{steps}; set epochs, batch and lists back, or choose another out"
        )
    return epoch, best


def _settings(run: _Run) -> dict[str, Any]:
    """The settings that must not change between a run and its resumption, as plain values."""
    free = ("data", "out", "init", "validate_every", "accelerator", "devices", "threads")
    values = dataclasses.asdict(run.config)
    fixed = {name: value for name, value in values.items() if name not in free}
    return fixed | {"frames": len(run.dataset)}
