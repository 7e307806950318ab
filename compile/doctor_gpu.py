"""The doctor's look at the GPU: a Jetson board, cards, or none."""

from pathlib import Path

from irstd.compile.doctor_jetson import examine_jetson
from irstd.compile.doctor_rtx import examine_cards
from irstd.compile.findings import Finding, fine
from irstd.files import read_system
from irstd.runtime.machine.identity import read_board
from irstd.runtime.machine.tools import Ask, ask

_NVIDIA, _DISPLAY = "0x10de", "0x03"


def examine_gpu(root: Path = Path("/"), run: Ask = ask) -> list[Finding]:
    """Look at what engines for GPUs need.

    Args:
        root: Where /etc, /proc, /sys and /usr are found.
        run: Runs a tool of the system.
    """
    if board := read_board(root):
        return examine_jetson(board, root, run)
    if has_card(root):
        return examine_cards(root, run)
    return [fine("gpu", "none of NVIDIA's: engines run on the CPU here")]


def has_card(root: Path) -> bool:
    """Whether a graphics card of NVIDIA's is in the machine, with a driver or without."""
    if (root / "proc/driver/nvidia").is_dir():
        return True
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        vendor, kind = (read_system(device / name) for name in ("vendor", "class"))
        if vendor == _NVIDIA and kind.startswith(_DISPLAY):
            return True
    return False
