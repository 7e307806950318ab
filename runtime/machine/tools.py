"""Runs a tool of the system that may be missing, hang, fail, or answer nonsense."""

import contextlib
import dataclasses
import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence

from irstd.errors import one_line

TIMEOUT_S = 10.0
MAX_BYTES = 1 << 18  # of an answer; what comes after is not looked at
_CHUNK_BYTES = 1 << 16
# nvpmodel is in /usr/sbin, which is in nobody's PATH but root's on some images.
_SYSTEM_FOLDERS = ("/usr/sbin", "/sbin", "/usr/bin", "/bin")


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a tool said.

    Attributes:
        text: Its standard output; of a tool that never ends, what it said until the timeout.
        problem: Why there is no answer, one line; None where there is one.
        installed: Whether the tool is there at all.
    """

    text: str = ""
    problem: str | None = None
    installed: bool = True


Ask = Callable[..., Answer]


def ask(command: Sequence[str], *, timeout_s: float = TIMEOUT_S, endless: bool = False) -> Answer:
    """Run a tool and return what it says. Never raises for what a tool does.

    Args:
        command: The tool and its arguments; no shell reads them.
        timeout_s: After this it is killed.
        endless: It is expected to run until it is killed, as tegrastats does.
    """
    path = os.pathsep.join([os.environ.get("PATH", ""), *_SYSTEM_FOLDERS])
    program = shutil.which(command[0], path=path)
    if program is None:
        return Answer(problem=f"{command[0]} is not installed", installed=False)
    try:
        # A session of its own, so that what a script started goes with it, and lets go of the pipe.
        process = subprocess.Popen(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,
        )
    except OSError as error:
        return Answer(problem=f"{command[0]} does not run ({error.strerror or error})")
    with process:
        try:
            out, err, is_over = _read(process, timeout_s)
        except BaseException:
            _kill(process)
            raise
        if not is_over:
            _kill(process)
    text = out.decode("utf-8", "replace")
    if not is_over:
        if endless and text.strip():
            return Answer(text)
        return Answer(problem=f"{command[0]} did not answer within {timeout_s:g} s")
    if process.returncode:
        said = text if "rror" in text or not err else err.decode("utf-8", "replace")
        reason = one_line(said.strip() or f"exit {process.returncode}", 160)
        return Answer(text, f"{command[0]} fails: {reason}")
    return Answer(text)


def _read(process: subprocess.Popen[bytes], timeout_s: float) -> tuple[bytes, bytes, bool]:
    """Return the beginning of a tool's output and errors, and whether it ended in time.

    `communicate` would keep all that a raving tool writes, gigabytes in seconds.
    """
    kept = {pipe: bytearray() for pipe in (process.stdout, process.stderr) if pipe}
    deadline = time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        for pipe in kept:
            selector.register(pipe, selectors.EVENT_READ, kept[pipe])
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                if data := os.read(key.fd, _CHUNK_BYTES):
                    key.data.extend(data[: MAX_BYTES - len(key.data)])
                else:
                    selector.unregister(key.fileobj)
        is_over = not selector.get_map()  # else it, or what it started, still holds a pipe
    if is_over:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            is_over = False
    out, err = (bytes(content) for content in kept.values())
    return out, err, is_over


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
