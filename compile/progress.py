"""What a long build says of itself: a bar on a terminal, JSON lines elsewhere, nothing if quiet."""

import importlib.util
import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TextIO, TypeVar

_log = logging.getLogger(__name__)
_LINE_EVERY_S = 5.0

_Item = TypeVar("_Item")


class Progress:
    """Tells of stages and of the frames within them, on standard error.

    Args:
        quiet: Log only.
        stream: Instead of standard error.
    """

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._quiet = quiet
        self._stream = stream
        self._next_step_s = 0.0

    def stage(self, what: str) -> None:
        """Say that a stage begins."""
        _log.info("%s", what)
        stream = self._stream or sys.stderr
        if self._quiet:
            return
        print(what if stream.isatty() else json.dumps({"progress": what}), file=stream, flush=True)

    def step(self, what: str, done: int, total: int) -> None:
        """Say, now and then, how far something is that an engine library does."""
        now = time.monotonic()
        if self._quiet or now < self._next_step_s:
            return
        self._next_step_s = now + _LINE_EVERY_S
        stream = self._stream or sys.stderr
        line = json.dumps({"progress": what, "done": done, "total": total})
        text = f"  {what}: {done} of {total}" if stream.isatty() else line
        print(text, file=stream, flush=True)

    def track(self, items: Sequence[_Item], what: str) -> Iterator[_Item]:
        """Yield `items`, and tell how many of them are done."""
        stream = self._stream or sys.stderr
        if self._quiet:
            yield from items
        elif stream.isatty() and importlib.util.find_spec("tqdm"):  # verifying needs no extra
            from tqdm import tqdm

            yield from tqdm(items, desc=what, unit="frame", file=stream, leave=False)
        else:
            yield from self._in_lines(items, what, stream)

    def _in_lines(self, items: Sequence[_Item], what: str, stream: TextIO) -> Iterator[_Item]:
        next_s = time.monotonic() + _LINE_EVERY_S
        for done, item in enumerate(items):
            if time.monotonic() >= next_s:
                line = {"progress": what, "done": done, "total": len(items)}
                print(json.dumps(line), file=stream, flush=True)
                next_s = time.monotonic() + _LINE_EVERY_S
            yield item


SILENT = Progress(quiet=True)
