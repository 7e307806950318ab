"""Runs torch_tensorrt/ against the genuine Torch-TensorRT 2.13, each file in its own process."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.bindings import ROOT, _script, environment, missing

FOLDER = _script["TORCH_TENSORRT_FOLDER"]
# What torch and Torch-TensorRT warn of and log is about themselves.
OPTIONS = ["-q", "-W", "ignore", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:logging"]
CHECKS = sorted(Path(__file__).with_name("torch_tensorrt").glob("over_*.py"))


@pytest.mark.parametrize("check", CHECKS, ids=lambda path: path.stem)
def test_checks_hold(check, require, tmp_path):
    pytest.importorskip("torch")
    if reason := missing(FOLDER):
        require("bindings", reason)
    if check.stem == "over_rtx" and not importlib.util.find_spec("tensorrt_rtx_bindings"):
        require("rtx", "TensorRT for RTX is not installed; pip install 'irstd-sdk[rtx]'")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *OPTIONS, check],
        env={**environment(FOLDER), "HOME": str(tmp_path), "IRSTD_REQUIRE": ""},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert re.search(r"\b[1-9]\d* passed", done.stdout), done.stdout
