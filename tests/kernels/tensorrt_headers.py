"""Folders of NVIDIA's headers that TensorRT's plugins are compiled against: TENSORRT_INCLUDE."""

import os
from pathlib import Path

import pytest

from irstd.runtime.kernels.tensorrt.plugin_library import OPERATORS

FOLDERS = [Path(p) for p in os.environ.get("TENSORRT_INCLUDE", "").split(os.pathsep) if p]
HEADERS = FOLDERS or [
    pytest.param(None, marks=pytest.mark.skip("no TensorRT headers; set TENSORRT_INCLUDE"))
]
with_headers = pytest.mark.parametrize(
    "headers", HEADERS, ids=lambda folder: folder.name if folder else "none"
)
each_operator = pytest.mark.parametrize("op", OPERATORS)
