"""Runs the checks of TensorRT for RTX in a process of their own, with its genuine wheels."""

import importlib.util
import os
from pathlib import Path

from tests.contract.bindings import ROOT, run_alone
from tests.contract.test_each_version import TIMEOUT_S

CHECKS = Path(__file__).with_name("rtx") / "session.py"


def test_session_holds_with_the_genuine_library(require):
    if not importlib.util.find_spec("tensorrt_rtx_bindings"):
        require("bindings", "no TensorRT for RTX; pip install 'irstd-sdk[rtx]'")
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    run_alone(CHECKS, {**os.environ, "PYTHONPATH": path}, TIMEOUT_S)
