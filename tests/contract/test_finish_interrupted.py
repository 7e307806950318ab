"""Processes that finish a bundle and are killed, at every stage and every file, and two at once."""

import json
import subprocess
import sys

import pytest

from irstd.bundle import read_bundle
from tests.contract.bindings import ROOT, environment, missing

VERSION = "10.3.0"
KILLED = -9


@pytest.fixture(scope="session")
def jetpack_6(require):
    """The environment of its bindings, while the cache is still the user's."""
    if reason := missing(VERSION):
        require("bindings", reason)
    return environment(VERSION)


@pytest.fixture
def start(tmp_path, jetpack_6):
    """A function (fate, *arguments) -> a process that finishes."""
    processes = []

    def run(fate, *arguments):
        command = [sys.executable, "-m", "tests.contract.finish_world", json.dumps(fate)]
        words = ["finish", *map(str, arguments), "--cache", str(tmp_path / "engines"), "--json"]
        process = subprocess.Popen(
            [*command, *words], env=jetpack_6, cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def ended(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, json.loads(out) if out else None, err


@pytest.mark.parametrize(("number", "origin"), [(1, "built"), (3, "cache")])
def test_power_cut_while_an_engine_without_weights_is_kept(number, origin, start, portable):
    path = portable()
    before = path.read_bytes()
    code, _, err = ended(start({"kill_at_sync": number}, path, "--weight-stripped"))
    assert code == KILLED, err
    assert path.read_bytes() == before
    code, report, err = ended(start({}, path, "--weight-stripped"))
    assert (code, report and report["origin"]) == (0, origin), err
    assert "strip_weights=True" in report["engine"]["key"]["flags"]


# Four files, in order: plan, timing cache, record, bundle; cut before and after it has its name.
@pytest.mark.parametrize(
    ("when", "number", "origin"),
    [
        ("kill_at_sync", 0, "built"),
        ("kill_at_rename", 0, "built"),
        ("kill_at_rename", 1, "built"),
        ("kill_at_rename", 2, "cache"),
        ("kill_at_sync", 3, "cache"),
        ("kill_at_rename", 3, "bundle"),
    ],
)
def test_power_cut_at_any_file_leaves_it_whole_and_the_next_run_goes_on(
    when, number, origin, start, portable
):
    path = portable()
    before = path.read_bytes()
    code, _, err = ended(start({when: number}, path))
    assert code == KILLED, err
    assert (path.read_bytes() == before) == (origin != "bundle")
    code, report, err = ended(start({}, path))
    assert (code, report and report["origin"]) == (0, origin), err
    assert read_bundle(path).manifest.engines


@pytest.mark.parametrize(
    ("stage", "origin"),
    [
        ("looking at this device", "built"),
        ("building the engine", "built"),
        ("running the golden frames", "cache"),
        ("writing", "cache"),
    ],
)
def test_killed_at_a_stage_goes_on_from_there(stage, origin, start, portable):
    path = portable()
    before = path.read_bytes()
    assert ended(start({"kill_at_stage": stage}, path))[0] == KILLED
    assert path.read_bytes() == before
    code, report, err = ended(start({}, path))
    assert (code, report and report["origin"]) == (0, origin), err


def test_two_processes_build_once(start, portable, tmp_path):
    path, gate = portable(), tmp_path / "go"
    first = start({"wait_for": str(gate)}, path)
    for line in first.stderr:
        if "building the engine" in line:
            break
    second = start({}, path)
    for line in second.stderr:
        if "waiting for another process" in line:
            break
    gate.write_text("")
    # The second builds nothing; whoever is later may find the bundle as the other has left it.
    for process, origins in ((first, {"built", "bundle"}), (second, {"cache", "bundle"})):
        code, report, err = ended(process)
        assert code == 0, err
        assert report["origin"] in origins
        assert "building the engine" not in err
    assert read_bundle(path).manifest.engines
    assert not list(path.parent.glob("*.part"))


def test_builder_that_is_killed_gives_its_lock_back(start, portable, tmp_path):
    path = portable()
    first = start({"wait_for": str(tmp_path / "never")}, path)
    for line in first.stderr:
        if "building the engine" in line:
            break
    first.kill()
    code, report, err = ended(start({}, path))
    assert (code, report and report["origin"]) == (0, "built"), err
