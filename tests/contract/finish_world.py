"""A Jetson that is not there, for `irstd-compile finish`: TensorRT's double, a driver on the host.

In the process of a check:

    world = World(trt, monkeypatch.setattr)
    world.install(Script(...), Run(...))

As a process of its own, in the environment of tests.contract.bindings:

    python -m tests.contract.finish_world '{"kill_at_sync": 2}' finish BUNDLE --json

whose first argument says what happens to it: killed at the n-th file that is written down
(kill_at_sync, before it has its name; kill_at_rename, after), killed at a stage (kill_at_stage), or
held up in the build until a file is there (wait_for).
"""

import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from irstd.compile import finish_plugins
from irstd.runtime.kernels.cuda import driver as cuda_driver
from irstd.runtime.kernels.cuda.bindings import Properties
from irstd.runtime.machine import identity
from tests.contract.double import Script, tensorrt_double
from tests.contract.double_runtime import Run, runnable
from tests.contract.host_driver import HostDriver

BOARD = "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"


@dataclasses.dataclass
class Orin(HostDriver):
    """An Orin as its driver describes it."""

    gpu: str = "Orin"
    architecture: int = 87
    multiprocessors: int = 8

    def properties(self, index: int) -> Properties:
        known = super().properties(index)._asdict()
        return Properties(
            **known
            | {
                "name": self.gpu,
                "architecture": self.architecture,
                "multiprocessors": self.multiprocessors,
                "memory_bytes": self.total_bytes,
            }
        )


class World:
    """The machine.

    Args:
        trt: The genuine bindings.
        replace: Sets an attribute for the length of a test.

    Attributes:
        driver: What is found of the GPU.
        board: Its board; None for a PC.
        driver_version: Of the driver.
        double: Of TensorRT, as last installed.
    """

    def __init__(self, trt: ModuleType, replace: Callable[..., None]) -> None:
        self._trt = trt
        self.driver = Orin()
        self.board: str | None = BOARD
        self.driver_version = "L4T 36.4.3"
        self.double: ModuleType = trt
        for module in (identity, cuda_driver, finish_plugins):
            replace(module, "find_binding", lambda: self.driver)
        replace(identity, "read_board", lambda root: self.board)
        replace(identity, "read_driver", lambda root: self.driver_version)

    def install(self, script: Script | None = None, run: Run | None = None) -> None:
        """Let TensorRT behave like this from now on."""
        self.double = tensorrt_double(self._trt, script, runnable(self.driver, run))
        sys.modules["tensorrt"] = self.double

    @property
    def builds(self) -> int:
        """How many builders TensorRT has made since it was installed."""
        return len(self.double.double.record.get("Builder", []))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_at(call: int, function: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
    """Return a function that kills the process at its `call`-th call."""
    calls: list[None] = []

    def counted(*arguments: Any) -> Any:
        calls.append(None)
        if len(calls) > call and not after:
            _die()
        result = function(*arguments)
        if len(calls) > call:
            _die()
        return result

    return counted


def main(fate: dict[str, Any], arguments: list[str]) -> int:
    """Run `irstd-compile` in this world."""
    from irstd import files
    from irstd.compile import command, progress
    from tests.contract.bindings import import_bindings

    def wait(step: int) -> None:
        while "wait_for" in fate and not Path(fate["wait_for"]).exists():
            time.sleep(0.01)

    world = World(import_bindings(), setattr)
    world.install(Script(at_step=wait))
    if "kill_at_sync" in fate:
        files.os.fsync = _kill_at(fate["kill_at_sync"], os.fsync, after=False)  # type: ignore[attr-defined]
    if "kill_at_rename" in fate:
        files.os.replace = _kill_at(fate["kill_at_rename"], os.replace, after=True)  # type: ignore[attr-defined]
    said = progress.Progress.stage

    def stage(self: progress.Progress, what: str) -> None:
        said(self, what)
        if what.startswith(fate.get("kill_at_stage", "\0")):
            _die()

    progress.Progress.stage = stage  # type: ignore[method-assign]
    return command.main(arguments)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1]), sys.argv[2:]))
