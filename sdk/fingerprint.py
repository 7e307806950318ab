"""What a result was made from and on: content keys, canonical JSON, and the machine."""

import dataclasses
import enum
import hashlib
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from irstd.errors import UsageError
from irstd.files import read_system
from irstd.version import __version__

# Distributions that can provide a library; the first that is installed counts.
LIBRARIES: dict[str, tuple[str, ...]] = {
    "numpy": ("numpy",),
    "opencv": ("opencv-python-headless", "opencv-python", "opencv-contrib-python"),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
    "onnx": ("onnx",),
    "torch": ("torch",),
    "tensorrt": ("tensorrt",),
    "tensorrt_rtx": ("tensorrt-rtx",),
}

# Instruction sets that decide which integer and half-precision kernels an engine can take, as
# Linux names them: x86-64, then Arm.
CPU_FLAGS = (
    "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx_vnni_int8", "avx512_bf16",
    "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16",
    "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Environment:
    """The machine and software that a measurement or a build ran on; nothing that names a person.

    Attributes:
        cpu_model: As the system names it.
        cpu_cores: Logical cores that this process may use.
        cpu_flags: Those of CPU_FLAGS that the processor has, in that order.
        cpu_governor: Frequency governor of the first core; None where not readable.
        cpu_mhz: Current frequency of the first core; None where not readable.
        memory_gb: Physical memory, 2**30 bytes; None where not readable.
        device: The board, such as "NVIDIA Jetson Orin Nano Developer Kit"; None off boards.
        machine: Architecture, such as "x86_64".
        os: System, release and C library.
        python: Version.
        libraries: Version of each of LIBRARIES that is installed.
        sdk_version: Of irstd.
    """

    cpu_model: str
    cpu_cores: int
    cpu_flags: tuple[str, ...]
    cpu_governor: str | None
    cpu_mhz: float | None
    memory_gb: float | None
    device: str | None
    machine: str
    os: str
    python: str
    libraries: Mapping[str, str]
    sdk_version: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        fields: dict[str, Any] = to_plain(self)
        return fields


def environment() -> dict[str, Any]:
    """Return the fields of this machine's Environment as JSON values, for a report."""
    return read_environment().to_dict()


def read_environment(root: Path = Path("/")) -> Environment:
    """Read what the system says of itself; no library is imported to learn its version.

    Args:
        root: Where /proc and /sys are found.
    """
    cpu = _first_cpu(read_system(root / "proc/cpuinfo"))
    # x86 calls them flags, Arm calls them Features.
    has = set((cpu.get("flags") or cpu.get("Features") or "").split())
    scaling = root / "sys/devices/system/cpu/cpu0/cpufreq"
    khz = _read_number(read_system(scaling / "scaling_cur_freq"))
    return Environment(
        cpu_model=_cpu_model(cpu),
        cpu_cores=_usable_cores(),
        cpu_flags=tuple(flag for flag in CPU_FLAGS if flag in has),
        cpu_governor=read_system(scaling / "scaling_governor") or None,
        cpu_mhz=_read_number(cpu.get("cpu MHz", "")) if khz is None else khz / 1000,
        memory_gb=_memory_gb(read_system(root / "proc/meminfo")),
        device=read_system(root / "proc/device-tree/model") or None,
        machine=platform.machine(),
        os=platform.platform(),
        python=platform.python_version(),
        libraries=installed_libraries(),
        sdk_version=__version__,
    )


def installed_libraries() -> dict[str, str]:
    """Return the version of each of LIBRARIES that is installed, without importing any."""
    import importlib.metadata  # costs as much as the rest of this package; few callers need it

    versions = {}
    for library, distributions in LIBRARIES.items():
        for distribution in distributions:
            try:
                versions[library] = importlib.metadata.version(distribution)
            except importlib.metadata.PackageNotFoundError:
                continue
            break
    return versions


def content_key(*parts: object) -> str:
    """Return one key for a sequence of values: equal for equal sequences, else different.

    Each part is hashed with its kind and length, so no two sequences run into one another:
    ("ab", "c") and ("a", "bc") differ, and so do "1", b"1" and 1.

    Args:
        parts: Text, bytes, or what `to_plain` takes. The order of a mapping's keys is ignored.

    Returns:
        64 hexadecimal digits.

    Raises:
        UsageError: A part is none of these.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, bytes | bytearray | memoryview):
            kind, data = b"b", bytes(part)
        elif type(part) is str:
            kind, data = b"s", part.encode("utf-8", "surrogatepass")
        else:
            kind, data = b"j", canonical_json(part).encode("ascii")
        digest.update(kind + len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def canonical_json(value: object, *, indent: int | None = None) -> str:
    """Encode a value as ASCII JSON with sorted keys: equal values give equal text.

    Raises:
        UsageError: As `to_plain`, or a number is not finite.
    """
    try:
        return json.dumps(to_plain(value), sort_keys=True, allow_nan=False, indent=indent)
    except ValueError as error:
        raise UsageError(f"JSON cannot hold NaN or infinity, in {_short(value)}") from error


def to_plain(value: object) -> Any:
    """Turn dataclasses, mappings, tuples, enumerations and numpy scalars into what `json` encodes.

    Args:
        value: None, bool, int, float, text, an enumeration of these, a numpy scalar, or a
            sequence, mapping with text keys, or dataclass of these. An enumeration becomes its
            value.

    Raises:
        UsageError: Something else.
    """
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise UsageError(f"key {_short(wrong[0])} of a mapping; wanted text")
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: to_plain(getattr(value, field.name)) for field in fields}
    if isinstance(value, enum.Enum):
        return to_plain(value.value)  # a str-enum left as it is prints as "Precision.INT8"
    if isinstance(value, np.generic):
        return to_plain(value.item())
    if value is None or isinstance(value, str | int | float):
        return value
    found = f"{_short(value)} is a {type(value).__name__}"
    raise UsageError(f"{found}; wanted text, a number, a sequence, a mapping or a dataclass")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _read_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _first_cpu(cpuinfo: str) -> dict[str, str]:
    """Return the fields of the first processor that states each."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip(), value.strip())
    return fields


def _cpu_model(cpu: Mapping[str, str]) -> str:
    if name := cpu.get("model name"):
        return name
    if part := cpu.get("CPU part"):  # Arm kernels give numbers, not names
        return f"Arm implementer {cpu.get('CPU implementer', '?')} part {part}"
    return platform.processor() or platform.machine()


def _memory_gb(meminfo: str) -> float | None:
    words = _first_cpu(meminfo).get("MemTotal", "").split()
    kib = _read_number(words[0]) if words else None
    return None if kib is None else round(kib / (1 << 20), 1)


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
