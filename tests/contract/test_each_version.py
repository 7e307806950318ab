"""Runs every file of checks/ against the bindings of every version, each in its own process.

One of them, by hand: pytest tests/contract -k "10.3.0 and builder"
"""

from pathlib import Path

import pytest

from tests.contract.bindings import VERSIONS, missing, run_checks

CHECKS = sorted(Path(__file__).with_name("checks").glob("[a-z]*.py"))
TIMEOUT_S = 300


@pytest.fixture(params=VERSIONS)
def version(request, require):
    if reason := missing(request.param):
        require("bindings", reason)
    return request.param


@pytest.mark.parametrize("check", CHECKS, ids=lambda path: path.stem)
def test_checks_hold(check, version):
    run_checks(check, version, TIMEOUT_S)


def test_an_unknown_version_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("IRSTD_CACHE", str(tmp_path))
    assert missing(VERSIONS[0]) == "no bindings of TensorRT 10.3.0; make contract-wheels"
