"""Pages against the code: every command is one that the parsers take, tables say what the data say.

What a page calls a command: a line of a code block that begins with one of ours.
"""

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest

import irstd.cli
from irstd.benchmarks.command import make_command
from irstd.compile.command import main as compile_
from irstd.errors import UsageError
from irstd.jetpack import JETPACKS
from irstd.runtime.command import main as run
from irstd.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks/README.md"]
MAINS = {"irstd-compile": compile_, "irstd-run": run}
COMMANDS = (*MAINS, "irstd-bench")
NETWORK_FLAGS = {"--target": tuple(TARGETS), "--precision": ("fp32", "fp16", "int8", "mixed")}


def code_lines(text):
    """Return the lines of indented and fenced code blocks, and of nothing else."""
    lines, fenced = [], False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or re.match(r" {4,}\S", line):
            lines.append(line.strip())
    return lines


def commands():
    for page in PAGES:
        for line in code_lines(page.read_text()):
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"\w+=\S*", words[0]):
                words = words[1:]
            if words and (name := words[0].rpartition("/")[2]) in COMMANDS:
                yield pytest.param(name, words[1:], id=f"{page.name}: {shlex.join(words)}")


@pytest.fixture(scope="module")
def parsers():
    """The real parsers, caught on their way to being run."""
    caught = {"irstd-bench": make_command("")}
    with pytest.MonkeyPatch.context() as patch:
        for name, main in MAINS.items():
            patch.setattr(
                irstd.cli, "run", lambda parser, argv, name=name: caught.update({name: parser}) or 0
            )
            assert main([]) == 0
    return caught


@pytest.mark.parametrize(("name", "words"), list(commands()))
def test_commands_are_taken(parsers, name, words):
    parsed = vars(parsers[name].parse_args(words))
    assert callable(parsed["handler"])
    for flag, known in NETWORK_FLAGS.items():
        if (given := parsed.get(flag.lstrip("-"))) is not None:
            assert given in known or (words[0], given) == ("estimate", "all")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_html_pages_are_drawn_with_is_installed_before(page):
    """A page that installs something and draws has installed matplotlib."""
    lines = code_lines(page.read_text())
    installs = [line for line in lines if "pip install" in line]
    draws = [line for line in lines if re.match(r"\S*irstd-bench .*--html", line)]
    if installs and draws:
        assert any("viz" in line for line in installs)


def test_a_command_that_is_not_is_found(parsers):
    with pytest.raises(UsageError):
        parsers["irstd-compile"].parse_args(["finish", "--no-such-flag", "a.irstd"])


def python_blocks():
    for page in PAGES:
        for number, code in enumerate(
            re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)
        ):
            yield pytest.param(code, id=f"{page.name} {number}")


@pytest.mark.parametrize("code", list(python_blocks()))
def test_names_that_python_imports_from_us_are_there(code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("irstd"):
            module = importlib.import_module(node.module)
            assert not [alias.name for alias in node.names if not hasattr(module, alias.name)]


def jetpack_rows():
    for page in sorted((ROOT / "docs").glob("jetpack-*.md")):
        for line in page.read_text().splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if line.startswith("|") and re.fullmatch(r"\d\.[\d.]+", cells[0]):
                yield pytest.param(cells, id=f"{page.name} {cells[0]}")


@pytest.mark.parametrize("cells", list(jetpack_rows()))
def test_versions_are_those_of_the_data(cells):
    (found,) = [jetpack for jetpack in JETPACKS if jetpack.version == cells[0]]
    boards = ", ".join(family.capitalize() for family in found.families)
    wanted = [", ".join(found.l4t), found.cuda, found.tensorrt, found.python, found.ubuntu, boards]
    assert cells[1:] == wanted


def test_every_jetpack_has_a_page():
    told = {param.values[0][0] for param in jetpack_rows()}
    assert told == {jetpack.version for jetpack in JETPACKS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_pages_name_are_there(page):
    text = page.read_text()
    named = set(re.findall(r"\bdocs/[\w./-]+\.md\b", text)) | {
        str((page.parent / link).resolve().relative_to(ROOT))
        for link in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)
    }
    assert not [name for name in sorted(named) if not (ROOT / name).exists()]


def test_device_pages_say_that_nothing_was_run():
    for page in [*(ROOT / "docs").glob("jetpack-*.md"), ROOT / "docs" / "rtx.md"]:
        assert "on this page was run on a" in " ".join(page.read_text().split()), page.name
