"""A counter on a terminal, nothing elsewhere: logs of long runs stay short."""

import logging
import sys
import time
from typing import TextIO

_PERIOD_S = 0.5
_log = logging.getLogger(__name__)


class Progress:
    """Counts steps towards a total on standard error. Use as a context manager.

    On a terminal one line is rewritten twice a second; elsewhere the start and the end are logged.
    """

    def __init__(
        self,
        label: str,
        total: float,
        unit: str,
        *,
        enabled: bool = True,
        stream: TextIO | None = None,
    ) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._stream = stream if stream is not None else sys.stderr
        self._visible = enabled and self._stream.isatty()
        self._next_s = 0.0
        self._drawn = 0

    def __enter__(self) -> "Progress":
        _log.info("%s: %g %s", self._label, self._total, self._unit)
        return self

    def __exit__(self, *_: object) -> None:
        if self._drawn:
            self._stream.write("\r" + " " * self._drawn + "\r")
            self._stream.flush()
        _log.info("%s: finished", self._label)

    def show(self, done: float) -> None:
        """Show that `done` of the total is reached; cheap enough to be called for each frame."""
        if not self._visible:
            return
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + _PERIOD_S
        line = f"{self._label}: {done:.0f} of {self._total:g} {self._unit}"
        self._stream.write("\r" + line.ljust(self._drawn))
        self._stream.flush()
        self._drawn = len(line)
