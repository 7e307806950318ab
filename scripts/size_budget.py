"""Fail when a source file has grown beyond the budget: split it by noun."""

import sys
from pathlib import Path

LINES = 400
SUFFIXES = (".py", ".cu", ".cuh", ".cpp", ".hpp", ".h")
FOLDERS = (
    "sdk",
    "compile",
    "calibration",
    "runtime",
    "benchmarks",
    "tests",
    "scripts",
    "examples",
)


def too_long(root: Path) -> list[str]:
    """Return one line a source file above the budget."""
    files = (p for folder in FOLDERS for p in sorted((root / folder).rglob("*")))
    found = []
    for path in files:
        if path.suffix in SUFFIXES:
            count = len(path.read_text("utf-8").splitlines())
            if count > LINES:
                found.append(f"{path.relative_to(root)}: {count} lines, at most {LINES}")
    return found


def main() -> int:
    found = too_long(Path(__file__).resolve().parent.parent)
    print("\n".join(found), end="\n" if found else "", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
