"""The edge that the three commands share."""

import argparse
import errno
import json
import logging
import os
import re
import subprocess
import sys
import threading

import numpy as np
import pytest

from irstd import cli, errors
from irstd.version import __version__


def every_error():
    found, pending = [], [errors.IrstdError]
    while pending:
        error = pending.pop()
        found.append(error)
        pending += error.__subclasses__()
    return found


@pytest.fixture
def run():
    """Return a function (handler, *arguments) -> exit code of `irstd-x do` with that handler."""

    def run(handler, *arguments):
        parser = cli.make_parser("irstd-x", "Do things.")
        verbs = parser.add_subparsers(required=True, metavar="VERB")
        verb = cli.add_verb(verbs, "do", handler, "Do it.")
        verb.add_argument("--count", type=int, default=3, help="how many")
        verb.add_argument("--name", help="whose")
        return cli.run(parser, ["do", *arguments])

    return run


def raises(error):
    def handler(_options):
        raise error

    return handler


def answers(exit_code=0, **report):
    return lambda _options: cli.Outcome(report, "in words", exit_code)


def test_text_is_for_people(run, capsys):
    assert run(answers(a=1)) == 0
    assert capsys.readouterr() == ("in words\n", "")


def test_json_is_exactly_one_object(run, capsys):
    assert run(answers(a=1, b=None), "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"a": 1, "b": None}
    assert out.count("\n") == 1
    assert err == ""


@pytest.mark.parametrize("code", [4, 5, 7])
def test_a_verdict_prints_its_report_and_its_exit_code(code, run, capsys):
    assert run(answers(exit_code=code, a=1), "--json") == code
    assert json.loads(capsys.readouterr().out) == {"a": 1}


def test_quiet_says_nothing(run, capsys):
    assert run(answers(), "-q") == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("error", every_error())
def test_every_error_is_one_line_with_its_exit_code(error, run, capsys):
    assert run(raises(error("got a,\n  wanted b"))) == error.exit_code
    assert capsys.readouterr() == ("", "irstd-x: got a, wanted b\n")


@pytest.mark.parametrize("error", every_error())
def test_every_error_is_json_if_asked(error, run, capsys):
    assert run(raises(error("message")), "--json") == error.exit_code
    wanted = {"type": error.__name__, "message": "message", "exit_code": error.exit_code}
    assert json.loads(capsys.readouterr().out) == {"error": wanted}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--count", "many"], "--count"),
        (["--cou", "3"], "--cou"),
        (["extra"], "extra"),
        (["-v", "-q"], "-q"),
    ],
)
def test_wrong_flags_exit_2_and_point_to_help(arguments, said, run, capsys):
    assert run(answers(), *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "--help" in err
    assert err.count("\n") == 1


def test_an_unknown_verb_lists_the_known(capsys):
    parser = cli.make_parser("irstd-x", "Do things.")
    verbs = parser.add_subparsers(required=True)
    cli.add_verb(verbs, "do", answers(), "Do it.")
    assert cli.run(parser, ["dont"]) == 2
    assert re.search(r"dont.*choose from .*do", capsys.readouterr().err)
    assert cli.run(parser, []) == 2


def test_interruption(run, capsys):
    assert run(raises(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "irstd-x: interrupted\n"


def test_a_termination_signal_cleans_up_like_ctrl_c(run_python):
    """In a process of its own: a signal that is not caught would end the test's."""
    code = """
import signal
from irstd.cli import make_parser, run

def handler(_options):
    try:
        signal.raise_signal(signal.SIGTERM)
    finally:
        print("cleaned")

parser = make_parser("irstd-test", "A test.")
parser.set_defaults(handler=handler, json=False, verbose=False, quiet=False)
before = signal.getsignal(signal.SIGTERM)
print(run(parser, []))
print(signal.getsignal(signal.SIGTERM) == before)
"""
    assert run_python(code).split() == ["cleaned", "130", "True"]


def test_commands_run_in_other_threads(run):
    codes = []
    thread = threading.Thread(target=lambda: codes.append(run(answers())))
    thread.start()
    thread.join()
    assert codes == [0]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a.irstd"), "a.irstd: the disk is full"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "b"), "b: No such file"),
        (PermissionError(errno.EACCES, "Permission denied", "c"), "c: Permission denied"),
        (OSError("strange"), "strange"),
    ],
)
def test_errors_of_the_system(error, said, run, capsys):
    assert run(raises(error)) == 1
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("library", cli.EXTRAS)
def test_a_library_that_is_not_installed(library, run, capsys):
    error = ModuleNotFoundError(f"No module named {library!r}", name=f"{library}.part")
    assert run(raises(error)) == 3
    assert f"pip install 'irstd-sdk[{cli.EXTRAS[library]}]'" in capsys.readouterr().err


def test_a_missing_module_of_ours_is_a_bug(run):
    error = ModuleNotFoundError("No module named 'irstd.gone'", name="irstd.gone")
    with pytest.raises(ModuleNotFoundError):
        run(raises(error))


def test_extras_are_those_of_setup_cfg(root):
    import configparser

    config = configparser.ConfigParser()
    config.read(root / "setup.cfg")
    for library, extra in cli.EXTRAS.items():
        wanted = config["options.extras_require"][extra].replace("-", "_")
        assert f"\n{library}>=" in wanted, (library, extra)


def test_bugs_are_not_hidden(run):
    with pytest.raises(ZeroDivisionError):
        run(raises(ZeroDivisionError()))


def test_a_reader_that_left():
    """`irstd-x do | head -1` ends without a traceback."""
    code = (
        "import sys, argparse; from irstd import cli\n"
        "parser = cli.make_parser('irstd-x', '')\n"
        "text = 'line\\n' * 100000\n"
        "cli.add_common_flags(parser, lambda _: cli.Outcome({}, text))\n"
        "sys.exit(cli.run(parser, []))"
    )
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr == b""


@pytest.mark.parametrize("flag", ["--json", "--quiet"])
@pytest.mark.parametrize("outcome", ["cli.Outcome({'a': 1}, 'text')", "open('')"])
def test_a_full_disk_behind_standard_output(flag, outcome):
    """One line says it, and no traceback, also where the error itself cannot be printed."""
    code = (
        "import sys; from irstd import cli\n"
        "parser = cli.make_parser('irstd-x', '')\n"
        f"cli.add_common_flags(parser, lambda _: {outcome})\n"
        f"sys.exit(cli.run(parser, ['{flag}']))"
    )
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, check=False
        )
    wanted = 0 if (flag, outcome[0]) == ("--quiet", "c") else 1
    assert done.returncode == wanted
    assert done.stderr.count(b"\n") == wanted


def test_version_and_help(capsys):
    parser = cli.make_parser("irstd-x", "Do things.")
    with pytest.raises(SystemExit, match="0"):
        cli.run(parser, ["--version"])
    assert capsys.readouterr().out == f"irstd-x {__version__}\n"


def test_help_prints_defaults_that_say_something(run, capsys):
    with pytest.raises(SystemExit, match="0"):
        run(answers(), "--help")
    out = capsys.readouterr().out
    assert "how many (default: 3)" in out
    assert "None" not in out
    assert "False" not in out
    for flag in ("--json", "-v", "-q"):
        assert flag in out


@pytest.mark.parametrize(("flag", "level"), [(None, "WARNING"), ("-v", "INFO"), ("-q", "ERROR")])
def test_logs_go_to_standard_error(flag, level, run, capsys):
    def handler(_options):
        log = logging.getLogger("irstd.x")
        for name in ("INFO", "WARNING", "ERROR"):
            log.log(logging.getLevelName(name), "at %s", name)
        return cli.Outcome({}, "")

    assert run(handler, "--json", *([flag] if flag else [])) == 0
    out, err = capsys.readouterr()
    assert out == "{}\n"
    lines = [line.split()[0] for line in err.splitlines()]
    assert lines == ["INFO", "WARNING", "ERROR"][["INFO", "WARNING", "ERROR"].index(level) :]


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array([[1, 2]]), [[1, 2]]),
        (np.array([np.nan, 1]), [None, 1]),
        ((1, (2,)), [1, [2]]),
        (float("nan"), None),
        (float("-inf"), None),
        (1.5, 1.5),
        (None, None),
        ("text", "text"),
        ({1: {"b": float("inf")}}, {"1": {"b": None}}),
    ],
)
def test_to_json(value, encoded):
    assert json.loads(cli.to_json({"value": value})) == {"value": encoded}


def test_handlers_get_their_flags(run):
    seen = []

    def handler(options):
        assert isinstance(options, argparse.Namespace)
        seen.append((options.count, options.name))
        return cli.Outcome({}, "")

    run(handler, "--count", "5", "--name", "x")
    assert seen == [(5, "x")]
