"""The doctor's look at a machine with GeForce cards: driver, cards, memory, clocks, temperature."""

from pathlib import Path

from irstd.compile.doctor_tensorrt import examine_tensorrt
from irstd.compile.findings import Finding, fine, to_do
from irstd.runtime.machine.nvidia_smi import SmiGpu, query_gpus
from irstd.runtime.machine.tools import Answer, Ask
from irstd.targets import TARGETS

# Of Linux, by the CUDA that they are the first for (CUDA's release notes, "CUDA Driver").
CUDA_12_DRIVER, CUDA_13_DRIVER = 525, 580
_INSTALL_DRIVER = "sudo ubuntu-drivers install, then sudo reboot"
_NEEDED_FREE_MB = 1024
_HOT_C = 87.0


def examine_cards(root: Path, run: Ask) -> list[Finding]:
    """Look at the cards of a machine.

    Args:
        root: Where /proc and /usr are found.
        run: Runs a tool of the system.
    """
    gpus, answer = query_gpus(run)
    if not gpus:
        return [_no_driver(answer), *examine_tensorrt(root, run, {}, None, is_jetson=False)]
    many = len(gpus) > 1
    findings = [_driver(gpus[0])]
    for index, gpu in enumerate(gpus):
        findings += _card(gpu, f" {index}" if many else "")
    return [*findings, *examine_tensorrt(root, run, {}, _cuda(gpus[0]), is_jetson=False)]


def _no_driver(answer: Answer) -> Finding:
    said = answer.problem or "nvidia-smi lists no GPU"
    if "version mismatch" in said:
        return to_do("driver", said, "sudo reboot: the kernel still runs the driver of before")
    if "communicate with the NVIDIA driver" in said:
        fix = f"sudo reboot; if that does not help: {_INSTALL_DRIVER}"
        return to_do("driver", said, fix)
    return to_do("driver", said, _INSTALL_DRIVER)


def _driver(gpu: SmiGpu) -> Finding:
    major = _driver_major(gpu)
    if major is None:
        return to_do("driver", "nvidia-smi does not say its version", "nvidia-smi -q")
    if major < CUDA_12_DRIVER:
        found = f"{gpu.driver_version}: older than {CUDA_12_DRIVER}, the first of CUDA 12"
        return to_do("driver", found, _INSTALL_DRIVER)
    return fine("driver", f"{gpu.driver_version}, of CUDA {_cuda(gpu)}")


def _card(gpu: SmiGpu, number: str) -> list[Finding]:
    """Return the findings of one card; `number` tells them apart where there are several."""
    return [
        _fit(gpu, f"gpu{number}"),
        _memory(gpu, f"gpu memory{number}"),
        _clocks(gpu, f"gpu clocks{number}"),
    ]


def _fit(gpu: SmiGpu, name: str) -> Finding:
    capability = gpu.compute_capability
    if capability is None:
        return fine(name, f"{gpu.name}; this driver does not say its compute capability")
    found = f"{gpu.name}, sm_{capability[0]}{capability[1]}"
    targets = [t.name for t in TARGETS.values() if t.compute_capability == capability]
    if not targets:
        known = sorted({t.compute_capability for t in TARGETS.values() if t.compute_capability})
        listed = ", ".join(f"sm_{major}{minor}" for major, minor in known)
        return to_do(name, f"{found}: no target is for it", f"use a GPU of {listed}")
    return fine(name, f"{found}: --target {targets[0]}")


def _memory(gpu: SmiGpu, name: str) -> Finding:
    if gpu.memory_total_mb is None or gpu.memory_used_mb is None:
        return fine(name, "not stated")
    free = gpu.memory_total_mb - gpu.memory_used_mb
    found = f"{free / 1024:.1f} of {gpu.memory_total_mb / 1024:.1f} GiB free"
    if free < _NEEDED_FREE_MB:
        fix = "nvidia-smi lists the processes that use it: end them"
        return to_do(name, f"{found}: too little to build an engine", fix)
    return fine(name, found)


def _clocks(gpu: SmiGpu, name: str) -> Finding:
    if gpu.temperature_c is not None and gpu.temperature_c >= _HOT_C:
        found = f"{gpu.temperature_c:.0f} C: it slows down"
        return to_do(name, found, "mend the cooling, or sudo nvidia-smi --power-limit=WATTS")
    if gpu.sm_clock_mhz is None or gpu.max_sm_clock_mhz is None:
        return fine(name, "not stated")
    highest = f"{gpu.max_sm_clock_mhz:.0f}"
    found = f"{gpu.sm_clock_mhz:.0f} of {highest} MHz, {_celsius(gpu)}"
    return fine(name, f"{found}; for timings: sudo nvidia-smi --lock-gpu-clocks={highest}")


def _celsius(gpu: SmiGpu) -> str:
    return "? C" if gpu.temperature_c is None else f"{gpu.temperature_c:.0f} C"


def _driver_major(gpu: SmiGpu) -> int | None:
    digits = (gpu.driver_version or "").partition(".")[0]
    return int(digits) if digits.isdigit() else None


def _cuda(gpu: SmiGpu) -> str:
    return "13" if (_driver_major(gpu) or 0) >= CUDA_13_DRIVER else "12"
