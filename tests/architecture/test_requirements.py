"""IRSTD_REQUIRE: what a machine should have cannot be skipped there as absent."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

def test_data(data_root):
    assert (data_root / "marker").exists()

def test_weights(weights_root):
    pass

@pytest.mark.gpu
def test_gpu():
    pass

def test_plain():
    pass
"""


@pytest.fixture
def outcomes(tmp_path):
    """Return a function (**environment) -> (exit code, output) of four small tests."""
    shutil.copy(Path(__file__).parents[1] / "conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    gpu: needs one\n")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "marker").touch()

    def run(**environment):
        absent = {"IRSTD_DATA": "absent", "IRSTD_WEIGHTS": "absent", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"],
            cwd=tmp_path,
            env={**os.environ, "IRSTD_REQUIRE": "", **absent, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_what_is_absent_is_skipped(outcomes):
    code, said = outcomes()
    assert code == 0
    assert "1 passed, 3 skipped" in said


def test_what_is_there_is_used(outcomes):
    assert "2 passed, 2 skipped" in outcomes(IRSTD_DATA="there")[1]


@pytest.mark.parametrize("what", ["data", "weights", "gpu"])
def test_what_is_required_fails_instead(what, outcomes):
    code, said = outcomes(IRSTD_REQUIRE=what)
    assert code == 1
    assert f"IRSTD_REQUIRE={what}, but" in said
    assert "1 passed, 2 skipped" in said


def test_everything_may_be_required(outcomes):
    code, said = outcomes(IRSTD_REQUIRE=" data, weights,gpu")
    assert code == 1
    assert "1 passed" in said
    assert "skipped" not in said


def test_an_unknown_requirement_is_refused(outcomes):
    code, said = outcomes(IRSTD_REQUIRE="gpus")
    assert code == 4
    assert "gpus" in said
