"""Estimate every network of the SDK on every board and card: the committed table.

    python scripts/estimates.py --out benchmarks/results/estimates.json

No board is needed, and none was: these are estimates (compile/estimate.py), of networks at their
default size in the fastest power mode.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from irstd.cli import to_json
from irstd.compile.estimate_report import NOTE, estimate_source
from irstd.compile.networks import NETWORKS
from irstd.errors import IrstdError
from irstd.files import write_atomic

COLUMNS = (
    "Network",
    "Target",
    "Power mode",
    "Precision",
    "Estimate ms",
    "Likely ms, from",
    "to",
    "Slowed by",
    "DLA could run",
)


def table_rows(network: str) -> list[list[Any]]:
    """Return the rows of one network.

    Raises:
        IrstdError: The network cannot be exported or lowered.
    """
    report = estimate_source(network)
    height, width = report["input_hw"]
    rows = []
    for row in report["estimates"]:
        low, high = row["likely_ms"]
        share = row["dla_mac_share"]
        rows.append(
            [
                f"{network} {height}x{width}",
                row["target"],
                row["power_mode"],
                row["precision"],
                round(row["estimate_ms"], 3),
                round(low, 2),
                round(high, 2),
                row["bottleneck"],
                None if share is None else f"{100 * share:.0f} % of products",
            ]
        )
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, help="table to write, JSON")
    options = parser.parse_args(argv)
    try:
        rows = [row for network in NETWORKS for row in table_rows(network)]
    except IrstdError as error:
        print(f"estimates: {error}", file=sys.stderr)
        return error.exit_code
    for row in rows:
        print("  ".join("-" if cell is None else str(cell) for cell in row))
    if options.out:
        report = {
            "kind": "estimates",
            "command": "python scripts/estimates.py --out benchmarks/results/estimates.json",
            "method": f"ESTIMATES, nothing was measured: {NOTE}",
            "columns": list(COLUMNS),
            "rows": rows,
        }
        write_atomic(options.out, to_json(report) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
