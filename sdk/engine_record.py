"""What an engine plan was built from and for, and the JSON beside it (docs/bundle-format.md).

A plan runs only where it was built: with that TensorRT, on that GPU, under that driver. Its name is
the hash of all that, so that two engines never share a name.
"""

import dataclasses
import enum
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from irstd.container import violation
from irstd.errors import UsageError
from irstd.fingerprint import canonical_json, content_key, to_plain

PLAN, TIMING, RECORD = ".plan", ".timing", ".json"
PLUGIN_GRAPH = "kernels/tensorrt/model.onnx"  # the deployed graph for a device with the plugins
MAX_RECORD_BYTES = 1 << 16
_KEY_DIGITS = 32
_DLA = "dla_core="
_MAX_TEXT = 200


class PlanForm(enum.Enum):
    """What a plan brings along; the value is the flag of an engine's key, "name=True"."""

    WHOLE = "whole"
    """All it needs, for the TensorRT that built it."""

    VERSION_COMPATIBLE = "version_compatible"
    """The builder's runtime too, by which later TensorRTs run it."""

    WEIGHT_STRIPPED = "strip_weights"
    """No weights: they come from the graph whenever it is loaded."""

    @property
    def flag(self) -> str:
        """What `irstd-compile finish` is asked with for it; empty for a whole one."""
        return {
            "version_compatible": "--version-compatible",
            "strip_weights": "--weight-stripped",
        }.get(self.value, "")


@dataclasses.dataclass(frozen=True)
class EngineDevice:
    """The machine that an engine was built on, and the library that built it.

    Attributes:
        library: Such as "TensorRT 10.3.0".
        cuda_major: CUDA that the driver is of.
        gpu: As the driver names it, such as "Orin"; every Orin is.
        board: Such as "NVIDIA Jetson Orin Nano Developer Kit"; empty off boards.
        architecture: Ten times the compute capability.
        multiprocessors: That are on. A power mode of a Jetson may switch some off.
        driver: Version, such as "L4T 36.4.3" or "580.95.05".
    """

    library: str
    cuda_major: int
    gpu: str
    board: str
    architecture: int
    multiprocessors: int
    driver: str

    def __str__(self) -> str:
        name = self.board or self.gpu
        return f"{self.library}, {name} (sm_{self.architecture}), driver {self.driver}"


@dataclasses.dataclass(frozen=True)
class EngineKey:
    """All that decides which plan TensorRT builds.

    Attributes:
        graph_sha256: Of the ONNX graph, 64 hexadecimal digits.
        precision: Of the graph.
        device: Where and by what it was built.
        flags: Settings of the builder, each as "name=value".
        plugins: Identity of each operator's plugin library, by operator; empty without.
    """

    graph_sha256: str
    precision: str
    device: EngineDevice
    flags: tuple[str, ...]
    plugins: Mapping[str, str]

    @property
    def digest(self) -> str:
        """32 hexadecimal digits; equal keys only have equal ones."""
        return content_key("engine", self)[:_KEY_DIGITS]

    @property
    def form(self) -> PlanForm:
        """What the plan brings along."""
        forms = (form for form in PlanForm if f"{form.value}=True" in self.flags)
        return next(forms, PlanForm.WHOLE)

    @property
    def dla_core(self) -> int | None:
        """Core of the Deep Learning Accelerator that runs a part of it; None: the GPU runs all."""
        told = (flag.removeprefix(_DLA) for flag in self.flags if flag.startswith(_DLA))
        return next((int(core) for core in told if core.isdecimal()), None)


@dataclasses.dataclass(frozen=True)
class EngineRecord:
    """What lies beside a plan.

    Attributes:
        key: What it was built from and for.
        plan_sha256: Of the plan's bytes.
        timing_sha256: Of the timing cache's bytes.
        libraries: Member of the bundle that holds each operator's plugin library.
        sdk_version: That built it.
    """

    key: EngineKey
    plan_sha256: str
    timing_sha256: str
    libraries: Mapping[str, str]
    sdk_version: str

    def to_json(self) -> bytes:
        """Encode it; equal records give equal bytes."""
        return canonical_json(self, indent=1).encode("ascii") + b"\n"


# What a message calls each field that can differ.
_NAMES = {
    "library": "library",
    "cuda_major": "CUDA",
    "gpu": "GPU",
    "board": "board",
    "architecture": "architecture",
    "multiprocessors": "multiprocessors",
    "driver": "driver",
}


def differences(
    built: EngineDevice, here: EngineDevice, form: PlanForm = PlanForm.WHOLE
) -> list[str]:
    """Return what is different here from where an engine was built; empty if nothing that counts.

    Args:
        built: Where it was.
        here: This device.
        form: Of its plan: one for later versions may meet a later TensorRT.
    """
    told = []
    for field, name in _NAMES.items():
        there, now = getattr(built, field), getattr(here, field)
        if field == "library" and form is PlanForm.VERSION_COMPATIBLE and _is_later(now, there):
            continue
        if there != now:
            label = "" if field == "library" else f"{name} "
            prefix = "sm_" if field == "architecture" else ""
            told.append(f"{label}{prefix}{there or 'none'} there, {prefix}{now or 'none'} here")
    return told


def _is_later(library: str, than: str) -> bool:
    """Whether both are TensorRT, and the first is of the later version."""
    found = [re.fullmatch(r"TensorRT (\d+(?:\.\d+)*)", text) for text in (library, than)]
    now, then = ([int(part) for part in one[1].split(".")] if one else None for one in found)
    return now is not None and then is not None and now > then


def member_names(digest: str) -> tuple[str, str, str]:
    """Return the members of an engine: plan, timing cache, record."""
    return (f"engines/{digest}{PLAN}", f"engines/{digest}{TIMING}", f"engines/{digest}{RECORD}")


def parse_record(data: bytes, where: str) -> EngineRecord:
    """Read the JSON beside a plan.

    Args:
        data: As `EngineRecord.to_json` gives it.
        where: Names it in errors.

    Raises:
        BundleCorrupt: It is not such a record.
    """
    if len(data) > MAX_RECORD_BYTES:
        raise violation("engine-record", f"{where} has {len(data)} bytes")
    try:
        record = json.loads(data.decode("ascii"))
        key = _fields(EngineKey, record["key"])
        device = EngineDevice(**_fields(EngineDevice, key["device"]))
        key |= {"device": device, "flags": tuple(key["flags"])}
        found = EngineRecord(**(_fields(EngineRecord, record) | {"key": EngineKey(**key)}))
    except (ValueError, TypeError, KeyError, RecursionError, UsageError) as error:
        reason = f"{where} is not the record of an engine ({type(error).__name__})"
        raise violation("engine-record", reason) from error
    if not _is_sound(found):
        raise violation("engine-record", f"{where} holds a value that no engine has")
    return found


def _fields(kind: Any, value: Any) -> dict[str, Any]:
    """Return a JSON object that has exactly the fields of a dataclass."""
    if not isinstance(value, dict) or set(value) != {f.name for f in dataclasses.fields(kind)}:
        raise ValueError(kind.__name__)
    return dict(value)


def _is_sound(record: EngineRecord) -> bool:
    """Whether every value is of its type, and short enough to be printed."""
    device = record.key.device
    texts = [
        record.key.precision, device.library, device.gpu, device.board, device.driver,
        record.sdk_version, *record.key.flags,
    ]  # fmt: skip
    for mapping in (record.key.plugins, record.libraries):
        if not isinstance(mapping, dict):
            return False
        texts += [*mapping, *mapping.values()]
    numbers = (device.cuda_major, device.architecture, device.multiprocessors)
    hashes = (record.key.graph_sha256, record.plan_sha256, record.timing_sha256)
    return (
        all(isinstance(t, str) and len(t) <= _MAX_TEXT and t.isprintable() for t in texts)
        and all(type(n) is int and 0 <= n < math.inf for n in numbers)
        and all(isinstance(h, str) and _is_sha256(h) for h in hashes)
    )


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and all(character in "0123456789abcdef" for character in text)


def describe(record: EngineRecord) -> dict[str, Any]:
    """Return the record as JSON values, for a report."""
    return {"digest": record.key.digest, **to_plain(record)}
