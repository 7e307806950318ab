"""The power mode of a Jetson: `nvpmodel -q`, and the modes that /etc/nvpmodel.conf defines."""

import dataclasses
import re

_CURRENT = re.compile(r"NV Power Mode: ?([!-~]{1,64})(?:\s+(?:MODE ID: )?(\d{1,3})\b)?")
_DEFINED = re.compile(r"<\s*POWER_MODEL\s+ID=(\d{1,3})\s+NAME=([!-~]{1,64}?)\s*>")


@dataclasses.dataclass(frozen=True)
class PowerMode:
    """One mode.

    Attributes:
        name: Such as "15W", "MODE_30W" or "MAXN_SUPER".
        number: What `nvpmodel -m` takes; None where not stated. The same name has different numbers
            on different modules: MAXN_SUPER is 0 on Orin NX and 2 on Orin Nano.
    """

    name: str
    number: int | None

    @property
    def is_unlimited(self) -> bool:
        """Whether no clock is capped for power."""
        return self.name.startswith("MAXN")


def parse_nvpmodel(text: str) -> PowerMode | None:
    """Read what `nvpmodel -q` prints, with or without its warnings; None where it names no mode."""
    found = _CURRENT.search(text)
    return PowerMode(found[1], int(found[2]) if found[2] else None) if found else None


def parse_power_modes(text: str) -> tuple[PowerMode, ...]:
    """Read the modes that a board has, in the order of /etc/nvpmodel.conf."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return tuple(
        PowerMode(name, int(number)) for number, name in _DEFINED.findall("\n".join(lines))
    )
