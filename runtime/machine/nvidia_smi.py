"""The GPUs of a machine as `nvidia-smi --query-gpu=... --format=csv` lists them."""

import dataclasses
import re

from irstd.runtime.machine.tools import Answer, Ask, ask

# In the order of the query. Old drivers lack some: 470 does not know compute_cap.
FIELDS = (
    "name", "driver_version", "compute_cap", "memory.total", "memory.used",
    "clocks.sm", "clocks.max.sm", "temperature.gpu", "power.draw", "power.limit",
)  # fmt: skip
_REFUSED = re.compile(r'Field "([a-z._]{1,64})" is not a valid field to query')
_NUMBER = re.compile(r"-?\d{1,12}(?:\.\d{1,6})?")
_CAPABILITY = re.compile(r"(\d{1,3})\.(\d{1,2})")
_MAX_GPUS = 64


@dataclasses.dataclass(frozen=True)
class SmiGpu:
    """One GPU; None for what the driver does not say, which on a Jetson is almost everything.

    Attributes:
        name: Such as "NVIDIA GeForce RTX 4090", or "Orin (nvgpu)".
        driver_version: Such as "580.65.06".
        compute_capability: (major, minor).
        memory_total_mb: 2**20 bytes.
        memory_used_mb: By all processes.
        sm_clock_mhz: Now.
        max_sm_clock_mhz: Highest.
        temperature_c: Of the GPU.
        power_w: Now.
        power_limit_w: Above which its clocks go down.
    """

    name: str
    driver_version: str | None = None
    compute_capability: tuple[int, int] | None = None
    memory_total_mb: float | None = None
    memory_used_mb: float | None = None
    sm_clock_mhz: float | None = None
    max_sm_clock_mhz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None


def query_gpus(run: Ask = ask) -> tuple[tuple[SmiGpu, ...], Answer]:
    """Ask nvidia-smi for the GPUs, leaving out the fields that its version does not know.

    Returns:
        The GPUs, and the last answer, whose `problem` says why there are none.
    """
    fields = list(FIELDS)
    while True:
        answer = run(["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv"])
        refused = _REFUSED.search(f"{answer.text} {answer.problem or ''}")
        if refused is None or refused[1] not in fields or len(fields) == 1:
            return (() if answer.problem else parse_gpus(answer.text)), answer
        fields.remove(refused[1])


def parse_gpus(text: str) -> tuple[SmiGpu, ...]:
    """Read the CSV that nvidia-smi prints, header included; lines that are none are left out."""
    # It quotes nothing: no name of a GPU has a comma.
    rows = [line.split(",") for line in text.splitlines()[: _MAX_GPUS + 1]]
    header = [column.strip().partition(" [")[0] for column in rows[0]] if rows else []
    if header[:1] != ["name"]:
        return ()
    gpus = []
    for row in rows[1:]:
        if len(row) != len(header) or not row[0].strip():
            continue
        value = dict(zip(header, (cell.strip() for cell in row), strict=True))
        gpus.append(
            SmiGpu(
                name=value["name"][:128],
                driver_version=_version(value.get("driver_version", "")),
                compute_capability=_capability(value.get("compute_cap", "")),
                memory_total_mb=_number(value.get("memory.total", "")),
                memory_used_mb=_number(value.get("memory.used", "")),
                sm_clock_mhz=_number(value.get("clocks.current.sm", value.get("clocks.sm", ""))),
                max_sm_clock_mhz=_number(value.get("clocks.max.sm", "")),
                temperature_c=_number(value.get("temperature.gpu", "")),
                power_w=_number(value.get("power.draw", "")),
                power_limit_w=_number(value.get("power.limit", "")),
            )
        )
    return tuple(gpus)


def _number(cell: str) -> float | None:
    """Return the number of "24564 MiB"; None for "[N/A]", "[Not Supported]" and the like."""
    found = _NUMBER.match(cell)
    return float(found[0]) if found else None


def _version(cell: str) -> str | None:
    return cell if re.fullmatch(r"[0-9.]{1,32}", cell) else None


def _capability(cell: str) -> tuple[int, int] | None:
    found = _CAPABILITY.fullmatch(cell)
    return (int(found[1]), int(found[2])) if found else None
