"""What engines leave of a process's signal handling: Ctrl-C stays an exception."""

import pytest

CODE = """
import signal, sys
from pathlib import Path
from irstd.runtime.sessions import open_session

model = Path(sys.argv[1]).read_bytes()
first, second = (open_session("openvino", model, threads=1) for _ in range(2))
first.close()
del first
second.close()
del second
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.default_int_handler)
    try:
        signal.raise_signal(number)
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_sessions_closed_in_the_order_of_their_opening_leave_signals_to_python(
    run_python, onnx_affine, tmp_path
):
    """With a Core each the signal ended the process: OpenVINO had left it a stack that was gone."""
    pytest.importorskip("openvino")
    model = tmp_path / "model.onnx"
    model.write_bytes(onnx_affine)
    assert run_python(CODE, str(model)).split() == ["interrupted", "interrupted"]
