"""Runs a tool of the system that may be missing, hang, fail, or answer nonsense."""

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence

from irstd.errors import one_line

TIMEOUT_S = 10.0
MAX_CHARACTERS = 1 << 18  # of an answer; what comes after is not looked at
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
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            _kill(process)
            text = _decode(process.communicate()[0])
            if endless and text.strip():
                return Answer(text)
            return Answer(problem=f"{command[0]} did not answer within {timeout_s:g} s")
        except BaseException:
            _kill(process)
            raise
    text = _decode(out)
    if process.returncode:
        said = text if "rror" in text or not err else _decode(err)
        reason = one_line(said.strip() or f"exit {process.returncode}", 160)
        return Answer(text, f"{command[0]} fails: {reason}")
    return Answer(text)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _decode(data: bytes) -> str:
    return data[:MAX_CHARACTERS].decode("utf-8", "replace")
