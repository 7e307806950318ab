"""How far a build of TensorRT is, and how Ctrl-C ends it."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from irstd.runtime.tensorrt.api import LOG

# Phase, steps done, steps.
Tell = Callable[[str, int, int], None]


class Watcher:
    """What the monitor of one build has seen. TensorRT calls it from its own threads.

    Args:
        tell: Called at each step of a phase.
    """

    def __init__(self, tell: Tell | None) -> None:
        self._tell = tell
        self._steps: dict[str, int] = {}
        self._error: BaseException | None = None

    def interrupt(self) -> None:
        """Ask the build to stop at its next step."""
        self._error = self._error or KeyboardInterrupt()

    def start(self, phase: str, steps: int) -> None:
        """Begin a phase of so many steps."""
        self._steps[phase] = steps
        self._say(phase, 0)

    def step(self, phase: str, step: int) -> bool:
        """Count a step, numbered from 0; False asks TensorRT to stop."""
        self._say(phase, step + 1)
        return self._error is None and not LOG.interrupted

    def finish(self, phase: str) -> None:
        """End a phase, which TensorRT may do before its last step."""
        self._say(phase, self._steps.pop(phase, 0))

    def raise_interrupt(self) -> None:
        """Raise what ended the build: it may not pass through TensorRT, which is C++."""
        if self._error is not None:
            raise self._error
        if LOG.interrupted:
            raise KeyboardInterrupt

    def _say(self, phase: str, done: int) -> None:
        if self._tell is None or self._error is not None:
            return
        try:
            self._tell(phase, done, self._steps.get(phase, done))
        except BaseException as error:  # kept, and raised after the build
            self._error = error


@contextlib.contextmanager
def watch(trt: ModuleType, config: Any, tell: Tell | None) -> Iterator[Watcher]:
    """Watch the build with a configuration, where the version lets it be watched (from 9.1).

    Args:
        trt: The module `tensorrt`.
        config: Its `IBuilderConfig`.
        tell: Called at each step.
    """
    watcher = Watcher(tell)
    if not hasattr(trt, "IProgressMonitor"):
        yield watcher  # Ctrl-C waits for the end of the build
        return

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            watcher.start(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return watcher.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            watcher.finish(phase_name)

    monitor = Monitor()  # TensorRT holds no reference of Python's: it lives until the build is over
    config.progress_monitor = monitor
    with _signals_to(watcher):
        yield watcher
    del monitor


@contextlib.contextmanager
def _signals_to(watcher: Watcher) -> Iterator[None]:
    """Have Ctrl-C and SIGTERM stop the build instead of raising in the midst of TensorRT's C++."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # What ignores a signal, or ends the process at once, goes on to.
    caught = [number for number, handler in before.items() if callable(handler)]
    for number in caught:
        signal.signal(number, lambda *_: watcher.interrupt())
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, before[number])
