"""Runs the files of finish/, which hold for any version, against the bindings of JetPack 6."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.bindings import ROOT, environment, missing

VERSION = "10.3.0"
FILES = sorted(Path(__file__).with_name("finish").glob("[a-z]*.py"))
TIMEOUT_S = 600


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_finish(file, require):
    if reason := missing(VERSION):
        require("bindings", reason)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", file],
        env=environment(VERSION),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b[1-9]\d* passed", done.stdout), done.stdout
