"""What keeps the repository readable: small files, finished work, an index of decisions."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("sdk", "compile", "calibration", "runtime", "benchmarks", "tests", "scripts", "examples")
# Spelt so that this file does not contain them.
UNFINISHED = re.compile(
    r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK", "place" + "holder",
                       "for" + " now", "not" + " implemented", "simplified" + " version"])
    + r")\b", re.IGNORECASE,
)  # fmt: skip


def sources():
    for folder in FOLDERS:
        yield from sorted((ROOT / folder).rglob("*.py"))


def pages():
    yield from ROOT.glob("*.md")
    for folder in ("docs", *FOLDERS):
        yield from sorted((ROOT / folder).rglob("*.md"))


def test_no_source_file_is_too_long(root):
    done = subprocess.run(
        [sys.executable, root / "scripts" / "size_budget.py"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_size_budget_catches_a_long_file(copy_tree, run_in):
    assert run_in(copy_tree, "python", "scripts/size_budget.py").returncode == 0
    (copy_tree / "runtime" / "kernel.cu").write_text("//\n" * 401)
    done = run_in(copy_tree, "python", "scripts/size_budget.py")
    assert done.returncode == 1
    assert "runtime/kernel.cu: 401 lines" in done.stderr


@pytest.mark.parametrize("kind", [sources, pages])
def test_nothing_is_left_unfinished(kind):
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in kind()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert not found


def test_no_path_of_a_machine_is_in_the_tree():
    home = re.compile(r"/(home|Users|root|mnt)/\w|" + re.escape(str(ROOT.parent) + "/"))
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in (*sources(), *pages(), ROOT / "Makefile", ROOT / "setup.cfg")
        for line in path.read_text("utf-8").splitlines()
        if home.search(line)
    ]
    assert not found


def test_the_index_of_decisions_is_complete():
    folder = ROOT / "docs" / "adr"
    index = (folder / "README.md").read_text("utf-8")
    files = sorted(path.name for path in folder.glob("[0-9]*.md"))
    listed = re.findall(r"^- \[(\d{4})\]\((\d{4}-[\w-]+\.md)\): (.+)$", index, re.MULTILINE)
    assert [file for _, file, _ in listed] == files
    for position, (number, file, title) in enumerate(listed, 1):
        assert int(number) == position, f"{file}: decisions are numbered without gaps"
        head = (folder / file).read_text("utf-8").splitlines()[0]
        assert head == f"# {position}. {title}"


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "adr").glob("[0-9]*.md")), ids=str)
def test_a_decision_has_its_three_parts(path):
    headings = re.findall(r"^## (.+)$", path.read_text("utf-8"), re.MULTILINE)
    assert headings[:1] == ["Context"]
    assert headings[-2:] == ["Decision", "Consequences"]


def test_links_between_pages_lead_somewhere():
    for page in pages():
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"


def test_decisions_named_in_the_code_exist():
    for path in (*sources(), *pages()):
        for name in re.findall(r"docs/adr/([\w-]+)", path.read_text("utf-8")):
            found = list((ROOT / "docs" / "adr").glob(f"{name}*"))
            assert found or name == "NNNN-title", f"{path.relative_to(ROOT)}: {name}"
