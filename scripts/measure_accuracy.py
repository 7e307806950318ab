"""Measure what quantization costs: FP32 against every precision and calibrator, as deployed.

    python scripts/measure_accuracy.py acm --data ../shared/data

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
from irstd.metrics import Scores

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"
CALIBRATION_SET = ("irstd_1k", "train.txt")
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
    parser.add_argument("--out", type=Path, help="(default: accuracy-NETWORK.json in results)")
    options = parser.parse_args(argv)
    out = options.out or RESULTS / f"accuracy-{options.network}.json"
    rows: list[list[Any]] = []
    document = {
        "command": "python scripts/measure_accuracy.py " + " ".join(argv or sys.argv[1:]),
        "method": (
            "as deployed: 256x256 engine, larger frames tiled with 32 px overlap, threshold 0.5; "
            "INT8 calibrated on at most 100 training frames of IRSTD-1k outside val.txt"
        ),
        "environment": environment(),
        "columns": list(COLUMNS),
        "rows": rows,
    }
    for name, listed in VERIFY_SETS:
        rows += measure(options, name, listed)
        write_atomic(out, json.dumps(document, indent=1) + "\n")  # each set stands for itself
        print(f"{out}: {len(rows)} rows", flush=True)
    return 0


def measure(options: argparse.Namespace, name: str, listed: str) -> Iterator[list[Any]]:
    """Yield the rows of one verification set, FP32 first."""
    label = f"{name}/{listed}"
    for index, variant in enumerate(VARIANTS):
        result = build(options, name, listed, variant)
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
    folder, calibration_list = CALIBRATION_SET
    with tempfile.TemporaryDirectory() as scratch:
        return build_bundle(
            options.network,
            Path(scratch) / "variant.irstd",
            data=options.data / folder,
            list=options.data / folder / calibration_list,
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
