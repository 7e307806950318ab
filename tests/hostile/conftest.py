"""Hostile builds use the tiny network and data of tests/compile."""

import importlib.util
from pathlib import Path

_PATH = Path(__file__).resolve().parent.parent / "compile" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("compile_fixtures", _PATH)
_FIXTURES = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_FIXTURES)

compile_command = _FIXTURES.compile_command
make_data = _FIXTURES.make_data
make_tiny = _FIXTURES.make_tiny
tiny_onnx = _FIXTURES.tiny_onnx
