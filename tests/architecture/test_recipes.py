"""The recipes of CONTRIBUTING.md, followed to the letter in a copy of the sources."""

import json
import re
import shutil
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "runtime" / "kernels"


def section(title):
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    return text.partition(f"## {title}\n")[2].partition("\n## ")[0]


def code_blocks(title):
    fenced = re.findall(r"^( *)```python\n(.*?)^ *```$", section(title), re.DOTALL | re.MULTILINE)
    # What is indented beyond the fence is part of the code.
    return ["".join(_cut(line, len(indent)) for line in body.splitlines(True))
            for indent, body in fenced]  # fmt: skip


def _cut(line, indent):
    return line[indent:] if line.strip() else line


def insert_before(path, marker, text):
    content = path.read_text("utf-8")
    assert content.count(marker) == 1, f"{marker!r} is not unique in {path}"
    path.write_text(content.replace(marker, text + marker), "utf-8")


def test_a_network_is_one_file_one_entry_one_row(copy_tree, run_in):
    module, function, entry, row = code_blocks("Add a network")
    networks = copy_tree / "compile" / "networks"
    (networks / "plain.py").write_text(module, "utf-8")
    facade = networks / "__init__.py"
    insert_before(facade, "NETWORKS: dict[str, NetworkSpec] = {", function + "\n\n")
    facade.write_text(facade.read_text("utf-8").removesuffix("}\n") + entry + "}\n", "utf-8")

    listed = run_in(
        copy_tree, "python", "-c",
        "from irstd.compile.command import main; main(['networks', '--json'])",
    )  # fmt: skip
    assert "plain" in [n["name"] for n in json.loads(listed.stdout)["networks"]]

    tests = copy_tree / "tests" / "compile"
    tests.mkdir(parents=True)
    for name in ("conftest.py", "test_networks.py"):
        shutil.copy(ROOT / "tests" / "compile" / name, tests)
    table = tests / "test_networks.py"
    text = table.read_text("utf-8")
    start = text.index("PUBLISHED = {")
    end = text.index("\n}\n", start) + 1
    table.write_text(text[:end] + row + text[end:], "utf-8")
    done = run_in(copy_tree, "python", "-m", "pytest", "-q", str(table), "-k", "plain or row")
    assert done.returncode == 0, done.stdout
    linted = run_in(copy_tree, "ruff", "check", "--no-cache", "compile/networks")
    assert linted.returncode == 0, linted.stdout
    formatted = run_in(copy_tree, "ruff", "format", "--no-cache", "--check", "compile/networks")
    assert formatted.returncode == 0, formatted.stdout


def test_a_target_is_one_literal_and_one_row(copy_tree, run_in):
    literal, row = code_blocks("Add a target")
    insert_before(copy_tree / "sdk" / "targets.py", "    )\n}\n", literal)
    name = re.search(r'"([a-z0-9-]+)"', literal)[1]
    listed = run_in(
        copy_tree, "python", "-c",
        "from irstd.compile.command import main; main(['targets', '--json'])",
    )  # fmt: skip
    assert listed.returncode == 0, listed.stderr
    assert name in listed.stdout

    tests = copy_tree / "tests" / "sdk"
    tests.mkdir(parents=True)
    table = tests / "test_targets.py"
    text = (ROOT / "tests" / "sdk" / "test_targets.py").read_text("utf-8")
    start = text.index("WANTED = {")
    end = text.index("\n}\n", start) + 1
    table.write_text(text[:end] + row + text[end:], "utf-8")
    done = run_in(copy_tree, "python", "-m", "pytest", "-q", str(table))
    assert done.returncode == 0, done.stdout


def test_no_layer_asks_for_a_target_by_name():
    """What differs between targets is data, so that a new one needs no new branch."""
    asks = re.compile(r"\btarget(\.name)? *[=!]=")
    for folder in ("compile", "runtime", "calibration", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            found = [line for line in path.read_text("utf-8").splitlines() if asks.search(line)]
            assert not found, path


def test_the_kernel_recipe_names_every_part():
    files = re.findall(r"^\| `([^`]+)` \|", section("Add a kernel"), re.MULTILINE)
    assert files == [
        "reference.py",
        "<op>.hpp",
        "<op>_cpu.hpp",
        "<op>_cpu.cpp",
        "cpu.py",
        "<op>.cu",
        "<op>_launch.hpp",
        "<op>_launch.cpp",
        "cuda.py",
        "<op>_openvino.hpp",
    ]


def test_every_kernel_follows_the_recipe():
    files = re.findall(r"^\| `([^`]+)` \|", section("Add a kernel"), re.MULTILINE)
    for folder in (p.parent for p in KERNELS.glob("*/reference.py")):
        for file in files:
            assert (folder / file.replace("<op>", folder.name)).is_file(), (folder, file)
        assert (ROOT / "compile" / "operators" / f"{folder.name}.py").is_file(), folder
        assert list((ROOT / "tests" / "kernels").glob(f"test_{folder.name}*.py")), folder


def test_every_file_and_name_that_the_page_mentions_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    mentioned = set(re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", text))
    missing = {p for p in mentioned if not (ROOT / p).exists()}
    assert missing <= {"compile/networks/plain.py", "../shared/data", "../shared/weights"}
    for name, place in re.findall(r"`([A-Z]{3,})` in\s+`([\w/.]+)`", text):
        assert re.search(rf"^{name}\b", (ROOT / place).read_text("utf-8"), re.MULTILINE), name
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"make (\w+) +#", textwrap.dedent(text)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
