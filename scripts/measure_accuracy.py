"""Measure what quantization costs: FP32 against every precision and calibrator, as deployed.

    python scripts/measure_accuracy.py acm --data ../shared/data
    python scripts/measure_accuracy.py alcnet --data ../shared/data --only sirst_v1 \
        --weights alcnet.pth.tar --normalize 95.01,41.511 --imgsz 256x256,512x512

Builds a bundle for each row with `irstd-compile build`, calibrated on training frames of IRSTD-1k
that are not in its val.txt, and scores it on frames that never calibrate. Writes
benchmarks/results/accuracy-<network>.json, from which README tables are made.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from irstd.compile import build_bundle
from irstd.compile.pipeline import BuildResult
from irstd.files import write_atomic
from irstd.fingerprint import environment
from irstd.frames import read_list
from irstd.metrics import Scores

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"
CALIBRATION_SET = ("irstd_1k", "train.txt", "val.txt")  # the first list without the second
CALIBRATION_LIST = "calibrate.txt"
VERIFY_SETS = (("nudt_sirst", "val.txt"), ("irstd_1k", "val.txt"), ("sirst_v1", "test.txt"))
VARIANTS: tuple[dict[str, Any], ...] = (
    {"precision": "fp16"},
    {"precision": "int8", "calibration": "minmax"},
    {"precision": "int8", "calibration": "mse"},
    {"precision": "int8", "calibration": "percentile"},
    {"precision": "int8", "calibration": "entropy"},
    {"precision": "int8", "calibration": "minmax", "int8_form": "nvidia"},
)
COLUMNS = ("frames", "graph", "IoU", "nIoU", "Pd", "Fa", "HSE-P", "HSE-T", "HSE", "HSE change")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network")
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--weights", type=Path, help="instead of the shipped ones")
    parser.add_argument("--normalize", help="for foreign weights")
    parser.add_argument("--imgsz", default="256x256", help="engine sizes, HxW[,HxW]")
    parser.add_argument("--only", choices=[name for name, _ in VERIFY_SETS], help="one set alone")
    parser.add_argument("--out", type=Path, help="(default: accuracy-NETWORK.json in results)")
    options = parser.parse_args(argv)
    out = options.out or RESULTS / f"accuracy-{options.network}.json"
    sizes = options.imgsz.split(",")
    rows: list[list[Any]] = []
    document = {
        "command": "python scripts/measure_accuracy.py " + " ".join(argv or sys.argv[1:]),
        "method": (
            f"as deployed: {' and '.join(sizes)} engine, larger frames tiled with 32 px overlap, "
            "smaller ones padded, threshold 0.5; INT8 calibrated on at most 100 training frames of "
            "IRSTD-1k outside val.txt"
        ),
        "environment": environment(),
        "columns": list(COLUMNS),
        "rows": rows,
    }
    with tempfile.TemporaryDirectory() as scratch:
        options.scratch = Path(scratch)
        folder, train_list, val_list = CALIBRATION_SET
        lists = [read_list(options.data / folder / name) for name in (train_list, val_list)]
        calibrating = sorted(set(lists[0]) - set(lists[1]))
        (options.scratch / CALIBRATION_LIST).write_text("\n".join(calibrating), "utf-8")
        for name, listed in VERIFY_SETS:
            if options.only not in (None, name):
                continue
            for size in sizes:
                rows += measure(options, name, listed, size)
                write_atomic(out, json.dumps(document, indent=1) + "\n")  # each stands for itself
                print(f"{out}: {len(rows)} rows", flush=True)
    return 0


def measure(options: argparse.Namespace, name: str, listed: str, size: str) -> Iterator[list[Any]]:
    """Yield the rows of one verification set and engine size, FP32 first."""
    label = f"{name}/{listed}" + (f" at {size}" if size != options.imgsz else "")
    for index, variant in enumerate(VARIANTS):
        result = build(options, name, listed, variant | {"imgsz": size})
        accuracy = result.verdict.accuracy
        assert accuracy is not None
        if not index:
            yield [label, "FP32", *_scores(accuracy.fp32), 0.0]
        row = [label, title(variant), *_scores(accuracy.deployed), round(accuracy.change["hse"], 2)]
        print(*row, sep="\t", flush=True)
        yield row


def build(
    options: argparse.Namespace, name: str, listed: str, variant: dict[str, Any]
) -> BuildResult:
    """Build one variant, verified on one set."""
    return build_bundle(
        options.network,
        options.scratch / "variant.irstd",
        data=options.data / CALIBRATION_SET[0],
        list=options.scratch / CALIBRATION_LIST,
        verify_data=options.data / name,
        verify_list=options.data / name / listed,
        weights=options.weights,
        normalize=options.normalize,
        **variant,
    )


def title(variant: dict[str, Any]) -> str:
    """Return how a variant is called in tables."""
    parts = [variant["precision"].upper(), variant.get("calibration", "")]
    parts.append("signed (NVIDIA form)" if variant.get("int8_form") == "nvidia" else "")
    return " ".join(part for part in parts if part)


def _scores(scores: Scores) -> list[float]:
    names = ("iou", "niou", "pd", "fa", "hse_p", "hse_t", "hse")
    return [round(getattr(scores, name), 2) for name in names]


if __name__ == "__main__":
    sys.exit(main())
