"""Turn the best weights of training runs into what the package ships, scores measured.

    python scripts/ship_weights.py examples/train-acm.yaml examples/train-acm-256.yaml \
        examples/train-acm-paste.yaml examples/train-acm-finish.yaml --shares 0 1 2 2 \
        --data ../shared/data

Takes the training configurations in the order in which they ran. What ships is the mean of their
best weights with the given shares, or the last one's.
Writes compile/weights/<network>.safetensors, .onnx (symbolic height and width) and .md.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from irstd.compile.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from irstd.compile.distil.config import TrainConfig, load_config
from irstd.compile.distil.data import LabelledFrame
from irstd.compile.distil.train import BEST, LOG, validate
from irstd.compile.export import export
from irstd.compile.sources import describe_model
from irstd.files import write_atomic
from irstd.frames import list_labelled, read_labelled
from irstd.metrics import Scores

WEIGHTS = Path(__file__).resolve().parent.parent / "compile" / "weights"
SETS = (("irstd_1k", "val.txt"), ("nudt_sirst", "val.txt"), ("sirst_v1", "test.txt"))
LICENCE = "Apache-2.0; trained on IRSTD-1k and NUDT-SIRST training lists (both MIT)"

CARD = """# {title}: shipped weights

| | |
|---|---|
| network | {network}, 1-channel input, batch-norm fusion, {parameters:,} parameters |
| training data | official training lists of IRSTD-1k and NUDT-SIRST, both MIT licensed; the \
`val.txt` tenth of each was left out and chose the epoch |
| training | {stages} |
{note}| input | 8-bit grey frames, (x - {mean:g}) / {std:g} grey levels |
| output | logits; probability = sigmoid; threshold 0.5 |
| licence | {licence} |

## Measured scores

FP32 torch module, whole frames padded after normalisation to multiples of 32 px, threshold 0.5,
metrics as in `irstd.metrics`. Made by `scripts/ship_weights.py`.

{table}

`sirst_v1/test.txt` is another data set altogether (SIRST v1, 214 frames): nothing of it was trained
on or tuned on. The scores of deployed bundles, tiled and quantized, are in
`benchmarks/results/accuracy-{network}.json`.

## Limits

Trained on single 8-bit frames of 256 to 512 px, targets of 1 to some 150 px. A gate pools over the
whole input, so tiles and padding change scores a little. Deeper frames are stretched to the same
range. Not a safety component.
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configs", nargs="+", type=Path, help="training configurations, in order")
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--shares", nargs="+", type=float, help="of each in the mean that ships")
    parser.add_argument("--note", default="", help="what else to say of the training")
    options = parser.parse_args(argv)
    stages = {path: load_config(path) for path in options.configs}
    last = stages[options.configs[-1]]
    shares = options.shares or [0.0] * (len(stages) - 1) + [1.0]
    if len(shares) != len(stages) or min(shares) < 0 or not sum(shares):
        parser.error(f"--shares {shares}: wanted one share from 0 on for each configuration")
    checkpoint = _mean(list(stages.values()), shares)
    assert checkpoint.normalize is not None
    scores = {f"{name}/{listed}": _score(checkpoint, options.data / name, listed)
              for name, listed in SETS if (options.data / name).is_dir()}  # fmt: skip
    model = export(checkpoint.module, checkpoint.options.in_channels)
    described = describe_model(model, last.network, checkpoint.normalize, LICENCE)
    stem = WEIGHTS / last.network
    save_checkpoint(
        stem.with_suffix(".safetensors"), last.network, checkpoint.options,
        checkpoint.module.state_dict(), checkpoint.normalize,
    )  # fmt: skip
    write_atomic(stem.with_suffix(".onnx"), described.SerializeToString())
    write_atomic(stem.with_suffix(".md"), _card(checkpoint, scores, stages, shares, options.note))
    print(stem.with_suffix(".md").read_text("utf-8"))
    return 0


def _mean(stages: Sequence[TrainConfig], shares: Sequence[float]) -> Checkpoint:
    """Return the mean of the best weights of all stages; counters are those of the last."""
    starts = [load_checkpoint(stage.network, stage.out / BEST) for stage in stages]
    states = [start.module.state_dict() for start in starts]
    total = sum(shares)
    mean = {
        name: sum(share / total * state[name] for share, state in zip(shares, states, strict=True))
        if value.is_floating_point()
        else value
        for name, value in states[-1].items()
    }
    starts[-1].module.load_state_dict(mean)
    return starts[-1]


def _score(checkpoint: Checkpoint, folder: Path, listed: str) -> Scores:
    files = list_labelled(folder, folder / listed, masks_required=True)
    assert checkpoint.normalize is not None
    frames = [LabelledFrame(*read_labelled(file)) for file in files]
    return validate(checkpoint.module, frames, checkpoint.normalize)


def _card(
    checkpoint: Checkpoint,
    scores: Mapping[str, Scores],
    stages: Mapping[Path, TrainConfig],
    shares: Sequence[float],
    note: str,
) -> str:
    assert checkpoint.normalize is not None
    mean, std = checkpoint.normalize
    return CARD.format(
        title=checkpoint.network.upper(),
        network=checkpoint.network,
        parameters=sum(p.numel() for p in checkpoint.module.parameters()),
        stages="; then ".join(_stage(path, config) for path, config in stages.items())
        + f"; shipped: {_shipped(stages, shares)}",
        note=f"| note | {note} |\n" if note else "",
        mean=mean,
        std=std,
        licence=LICENCE,
        table=_table(scores),
    )


def _stage(path: Path, config: TrainConfig) -> str:
    """Say how long one stage ran, as its log has it."""
    return (
        f"`irstd-compile distil examples/{path.name}`, {_records(config)[-1]['epoch']} epochs of "
        f"crops of {config.crop_px}x{config.crop_px}"
    )


def _shipped(stages: Mapping[Path, TrainConfig], shares: Sequence[float]) -> str:
    """Say which weights ship."""
    kept = [
        f"`{path.stem}` epoch {_best_epoch(config)} ({share / sum(shares):.0%})"
        for (path, config), share in zip(stages.items(), shares, strict=True)
        if share
    ]
    return kept[0] if len(kept) == 1 else f"the mean of the weights of {', '.join(kept)}"


def _best_epoch(config: TrainConfig) -> int:
    measured = (record for record in _records(config) if "merit" in record)
    epoch: int = max(measured, key=lambda record: record["merit"])["epoch"]
    return epoch


def _records(config: TrainConfig) -> list[dict[str, Any]]:
    log = (config.out / LOG).read_text("utf-8")
    return [json.loads(line) for line in log.splitlines()]


def _table(scores: Mapping[str, Scores]) -> str:
    names = ("frames", "IoU", "nIoU", "Pd", "Fa (1e-6)", "HSE-P", "HSE-T", "HSE")
    head = f"| {' | '.join(names)} |\n|{'---|' * len(names)}"
    rows = [
        f"| `{name}` ({s.frames}) | {s.iou:.2f} | {s.niou:.2f} | {s.pd:.2f} | {s.fa:.2f} | "
        f"{s.hse_p:.2f} | {s.hse_t:.2f} | {s.hse:.2f} |"
        for name, s in scores.items()
    ]
    return "\n".join([head, *rows])


if __name__ == "__main__":
    sys.exit(main())
