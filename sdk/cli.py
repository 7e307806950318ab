"""The edge that the three commands share: flags, logging, JSON, exit codes.

A handler takes the parsed flags and returns an Outcome; everything else happens here once.
"""

import argparse
import contextlib
import dataclasses
import errno
import json
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from irstd.errors import IrstdError, MissingDependency, UsageError
from irstd.files import printable
from irstd.version import __version__

INTERRUPTED = 130

# The extra that brings each library that is imported only when it is used.
EXTRAS = {
    "lightning_fabric": "train",
    "matplotlib": "viz",
    "onnx": "compile",
    "onnxruntime": "cpu",
    "onnxsim": "compile",
    "openvino": "cpu",
    "safetensors": "compile",
    "torch": "train",
    "tqdm": "compile",
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a command answers.

    Attributes:
        report: The one JSON object of `--json`.
        text: The same for people.
        exit_code: 0, or the documented code of a verdict that still prints its report.
    """

    report: Mapping[str, Any]
    text: str
    exit_code: int = 0


Handler = Callable[[argparse.Namespace], Outcome]


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Prints each default but those that say nothing, None and False."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def make_parser(prog: str, description: str) -> argparse.ArgumentParser:
    """Return the top parser of a command, with --version."""
    parser = _Parser(
        prog=prog, description=description, formatter_class=HelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"{prog} {__version__}")
    return parser


def add_verb(subparsers: Any, name: str, handler: Handler, help_text: str) -> Any:
    """Add a verb with the flags that every verb has, and return its parser."""
    verb = subparsers.add_parser(
        name,
        help=help_text,
        description=help_text,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    add_common_flags(verb, handler)
    return verb


def add_common_flags(parser: argparse.ArgumentParser, handler: Handler) -> None:
    """Add --json, -v and -q, and remember the handler."""
    parser.add_argument("--json", action="store_true", help="print one JSON object and only that")
    volume = parser.add_mutually_exclusive_group()
    volume.add_argument("-v", "--verbose", action="store_true", help="log what is done")
    volume.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    parser.set_defaults(handler=handler)


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Parse, handle, print, and return the exit code. Never raises for what a user did."""
    # FFmpeg and OpenCV report on damaged files for themselves, in many lines; ours is one.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in arguments
    try:
        with _terminate_as_interrupt():
            options = parser.parse_args(arguments)
            _configure_logging(verbose=options.verbose, quiet=options.quiet)
            outcome: Outcome = options.handler(options)
            return _print_outcome(outcome, as_json=as_json, quiet=options.quiet)
    except IrstdError as error:
        return _fail(parser.prog, str(error), type(error).__name__, error.exit_code, as_json)
    except ModuleNotFoundError as error:
        missing = _missing(error)
        kind = type(missing).__name__
        return _fail(parser.prog, str(missing), kind, missing.exit_code, as_json)
    except KeyboardInterrupt:
        return _fail(parser.prog, "interrupted", "KeyboardInterrupt", INTERRUPTED, as_json)
    except BrokenPipeError:
        _discard_output()
        return 1
    except OSError as error:
        return _fail(parser.prog, explain(error), type(error).__name__, 1, as_json)


def to_json(report: Mapping[str, Any]) -> str:
    """Encode a report as one JSON object; NaN and infinity, which JSON lacks, become null."""
    return json.dumps(_plain(report), allow_nan=False)


def _print_outcome(outcome: Outcome, *, as_json: bool, quiet: bool) -> int:
    if as_json:
        print(to_json(outcome.report), flush=True)
    elif outcome.text and not quiet:
        print(outcome.text, flush=True)
    return outcome.exit_code


def _fail(prog: str, message: str, kind: str, exit_code: int, as_json: bool) -> int:
    line = printable(" ".join(message.split()))
    print(f"{prog}: {line}", file=sys.stderr)
    if as_json:
        error = {"type": kind, "message": line, "exit_code": exit_code}
        try:
            print(json.dumps({"error": error}), flush=True)
        except OSError:  # a reader that left, a full disk: the line on standard error has it
            _discard_output()
    return exit_code


def _discard_output() -> None:
    """Let what Python still holds for standard output go nowhere when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM, which services and containers send, clean up as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_signal: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _missing(error: ModuleNotFoundError) -> MissingDependency:
    """Turn a failed lazy import into the command that mends it; re-raise what is a bug."""
    library = (error.name or "").partition(".")[0]
    if library not in EXTRAS:
        raise error
    return MissingDependency(
        f"{library} is not installed; it comes with: pip install 'irstd-sdk[{EXTRAS[library]}]'"
    )


def explain(error: OSError) -> str:
    """Return what the system refused, as one line that names the file."""
    where = error.filename or "a file"
    if error.errno == errno.ENOSPC:
        return f"{where}: the disk is full; that file was not written. Free space and run again"
    return f"{where}: {error.strerror or error}"


def _configure_logging(*, verbose: bool, quiet: bool) -> None:
    level = logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", force=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
