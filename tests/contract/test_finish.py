"""Runs the files of finish/, which hold for any version, against the bindings of JetPack 6."""

from pathlib import Path

import pytest

from tests.contract.bindings import missing, run_checks

VERSION = "10.3.0"
FILES = sorted(Path(__file__).with_name("finish").glob("[a-z]*.py"))
TIMEOUT_S = 600


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_finish(file, require):
    if reason := missing(VERSION):
        require("bindings", reason)
    run_checks(file, VERSION, TIMEOUT_S)
