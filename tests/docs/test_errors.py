"""docs/errors.md against the code: every class, its exit code, messages that are really said."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import irstd.errors
from irstd.errors import IrstdError

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "errors.md"
FOLDERS = ("sdk", "runtime", "calibration", "compile", "benchmarks")
GAP = "…"
CLASSES = {
    name: item
    for name, item in vars(irstd.errors).items()
    if isinstance(item, type) and issubclass(item, IrstdError)
}


def sections():
    parts = re.split(r"^## (\w+).*$", PAGE.read_text(), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def messages():
    for name, text in sections().items():
        for line in text.splitlines():
            if found := re.match(r"\| `([^`]+)` \| (.+) \| (.+) \|$", line):
                yield pytest.param(found[1], id=f"{name}: {found[1][:60]}")


@cache
def said():
    """Return every text in the source, what is filled in replaced by a gap."""
    texts = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = [
                        part.value if isinstance(part, ast.Constant) else GAP
                        for part in node.values
                    ]
                    texts.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
    return texts


def test_every_class_has_a_section_and_its_exit_code():
    found = sections()
    assert [name for name in CLASSES if name not in found] == []
    for name, item in CLASSES.items():
        assert f"Exit code {item.exit_code}" in found[name], name


def test_no_section_is_of_a_class_that_is_gone():
    assert [name for name in sections() if name[0].isupper() and name not in CLASSES] == []


@pytest.mark.parametrize("message", list(messages()))
def test_messages_are_said(message):
    pieces = [piece.strip() for piece in message.split(GAP) if piece.strip()]
    pattern = re.compile(".*".join(map(re.escape, pieces)), re.DOTALL)
    assert any(pattern.search(text) for text in said()), f"nothing says {message!r}"


def test_a_message_that_nothing_says_is_found():
    assert not any("the flux capacitor is empty" in text for text in said())
