"""What `irstd-compile doctor` looks at, one finding a thing."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What was looked at.
        ok: Whether nothing needs to be done.
        found: What was found.
        fix: The command or step that mends it; None when ok.
    """

    name: str
    ok: bool
    found: str
    fix: str | None


def fine(name: str, found: str) -> Finding:
    """Return a finding that needs nothing."""
    return Finding(name, True, found, None)


def to_do(name: str, found: str, fix: str) -> Finding:
    """Return a finding with what mends it."""
    return Finding(name, False, found, fix)
