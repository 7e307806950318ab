"""What this machine has and lacks for building and running bundles, and what mends it."""

import importlib.util
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from irstd.compile.doctor_gpu import examine_gpu
from irstd.compile.findings import Finding, fine
from irstd.files import cache_dir
from irstd.fingerprint import environment
from irstd.runtime.machine.identity import read_board

_LOW_DISK_GB = 1.0

# A package, what it is for, and the command.
_NEEDS: tuple[tuple[str, str, str], ...] = (
    ("onnxruntime", "engine and reference", "pip install 'irstd-sdk[cpu]'"),
    ("openvino", "the faster INT8 engine on most CPUs", "pip install 'irstd-sdk[cpu]'"),
    ("onnx", "building bundles", "pip install 'irstd-sdk[compile]'"),
    ("onnxsim", "building bundles", "pip install 'irstd-sdk[compile]'"),
    ("torch", "foreign checkpoints and training", "pip install 'irstd-sdk[train]'"),
    ("matplotlib", "HTML reports", "pip install 'irstd-sdk[viz]'"),
)
# With one of these, 8-bit products are summed in 32 bits; without, engines must scale or saturate.
_DOT_PRODUCT_FLAGS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp")


def examine(root: Path = Path("/")) -> list[Finding]:
    """Look at packages, processor, GPU, cache and disk.

    Args:
        root: Where /etc, /proc, /sys and /usr are found.
    """
    facts = environment()
    is_board = read_board(root) is not None
    findings = [
        _package(name, purpose, fix, facts["libraries"], is_board=is_board)
        for name, purpose, fix in _NEEDS
    ]
    flags = [flag for flag in _DOT_PRODUCT_FLAGS if flag in facts["cpu_flags"]]
    found = f"{facts['cpu_model']}, {facts['cpu_cores']} cores, "
    integer = ", ".join(flags) if flags else "no 8-bit dot product: INT8 gains less here"
    findings.append(Finding("processor", True, found + integer, None))
    governor = facts["cpu_governor"]
    fixed = governor in (None, "performance")
    findings.append(
        Finding(
            "cpu governor",
            fixed,
            governor or "not readable",
            None if fixed else "cpupower frequency-set -g performance (needs root)",
        )
    )
    return [*findings, *examine_gpu(root), _cache()]


def describe_findings(findings: Sequence[Finding]) -> str:
    """Return the findings as lines for people."""
    lines = []
    for finding in findings:
        lines.append(f"{'ok   ' if finding.ok else 'to do'} {finding.name}: {finding.found}")
        if finding.fix:
            lines.append(f"      {finding.fix}")
    return "\n".join(lines)


def _package(
    name: str, purpose: str, fix: str, versions: dict[str, str], *, is_board: bool
) -> Finding:
    if importlib.util.find_spec(name) is None:
        if is_board:  # a bundle is built elsewhere, finished and run without any of these
            return fine(name, f"not installed, nor needed on a board; for {purpose}: {fix}")
        return Finding(name, False, f"not installed; needed for {purpose}", fix)
    return Finding(name, True, f"{versions.get(name, 'installed')}, for {purpose}", None)


def _cache() -> Finding:
    folder = cache_dir()
    existing = folder
    while not existing.exists():
        existing = existing.parent
    if not os.access(existing, os.W_OK):
        return Finding("cache", False, f"{folder} is not writable", "export IRSTD_CACHE=DIR")
    free_gb = shutil.disk_usage(existing).free / 2**30
    if free_gb < _LOW_DISK_GB:
        return Finding("cache", False, f"{free_gb:.1f} GiB free at {folder}", f"rm -r {folder}")
    return Finding("cache", True, f"{folder}, {free_gb:.0f} GiB free", None)
