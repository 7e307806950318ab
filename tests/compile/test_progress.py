"""A bar on a terminal, JSON lines elsewhere, nothing when quiet; every item passes once."""

import io
import json

import pytest

from irstd.compile import progress as module
from irstd.compile.progress import SILENT, Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def often(monkeypatch):
    """Let every line appear, however short the wait."""
    monkeypatch.setattr(module, "_LINE_EVERY_S", -1.0)


def test_elsewhere_lines_are_json(often):
    stream = io.StringIO()
    progress = Progress(stream=stream)
    progress.stage("calibrating")
    assert list(progress.track("abc", "frames")) == ["a", "b", "c"]
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert lines[0] == {"progress": "calibrating"}
    assert lines[1:] == [
        {"progress": "frames", "done": done, "total": 3} for done in range(3)
    ]  # fmt: skip


def test_lines_are_rare():
    stream = io.StringIO()
    assert len(list(Progress(stream=stream).track(range(1000), "frames"))) == 1000
    assert stream.getvalue() == ""


def test_terminal_gets_words_and_a_bar():
    stream = Terminal()
    progress = Progress(stream=stream)
    progress.stage("calibrating")
    assert list(progress.track(range(5), "frames")) == list(range(5))
    assert stream.getvalue().startswith("calibrating\n")
    assert "5" in stream.getvalue()
    assert "{" not in stream.getvalue()


def test_terminal_without_tqdm_gets_lines(often, monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    stream = Terminal()
    assert list(Progress(stream=stream).track("ab", "frames")) == ["a", "b"]
    assert len(stream.getvalue().splitlines()) == 2


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_quiet_says_nothing(stream, often):
    progress = Progress(quiet=True, stream=stream)
    progress.stage("calibrating")
    assert list(progress.track("ab", "frames")) == ["a", "b"]
    assert stream.getvalue() == ""


def test_default_stream_is_the_standard_error_of_the_moment(capsys):
    Progress().stage("here")
    SILENT.stage("not here")
    assert capsys.readouterr().err == '{"progress": "here"}\n'
