"""Runs the checks of TensorRT for RTX in a process of their own, with its genuine wheels."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.contract.bindings import ROOT
from tests.contract.test_each_version import TIMEOUT_S

CHECKS = Path(__file__).with_name("rtx") / "session.py"


def test_session_holds_with_the_genuine_library(require):
    if not importlib.util.find_spec("tensorrt_rtx_bindings"):
        require("bindings", "no TensorRT for RTX; pip install 'irstd-sdk[rtx]'")
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", CHECKS],
        env={**os.environ, "PYTHONPATH": path},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b[1-9]\d* passed", done.stdout), done.stdout
