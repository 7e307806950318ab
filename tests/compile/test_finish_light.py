"""Finishing and the doctor need neither torch nor onnx, nor any engine but TensorRT."""

import json

import pytest

BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

BLOCKED = {"torch", "onnx", "onnxsim", "onnxruntime", "openvino", "lightning_fabric", "tqdm"}
sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture
def portable(compile_command, tiny_onnx, tmp_path):
    path = tmp_path / "tiny.irstd"
    code, _, err = compile_command(
        "build", tiny_onnx(), "--normalize", "80,40", "--target", "jetson-orin-nano", "-o", path
    )
    assert code == 0, err
    return path


def run_command(run_python, *words):
    code = f"""{BLOCKER}
import contextlib, io
from irstd.compile.command import main
out = io.StringIO()
with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
    code = main([*sys.argv[1:], "--json"])
print(code)
print(out.getvalue())
"""
    code, report = run_python(code, *map(str, words)).split("\n", 1)
    return int(code), json.loads(report)


def test_finish_gets_as_far_as_tensorrt(run_python, portable):
    before = portable.read_bytes()
    code, report = run_command(run_python, "finish", portable)
    assert (code, report["error"]["type"]) == (3, "MissingDependency")
    assert "TensorRT" in report["error"]["message"]
    assert portable.read_bytes() == before


def test_doctor_needs_none_of_them(run_python):
    modules = ("doctor", "doctor_gpu", "doctor_jetson", "doctor_rtx", "doctor_tensorrt")
    imports = "\n".join(f"import irstd.compile.{module}" for module in modules)
    run_python(f"{BLOCKER}\n{imports}\nirstd.compile.doctor_gpu.examine_gpu()")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--budget", "pd=-1"], "needs --data"),
        (["--list", "x"], "needs --data"),
        (["-o", "x.zip"], "ends in .irstd"),
        (["--no-such-flag"], "--help"),
    ],
)
def test_wrong_flags(words, said, compile_command, portable):
    code, report, _ = compile_command("finish", portable, *words)
    assert (code, report["error"]["type"]) == (2, "UsageError")
    assert said in report["error"]["message"]


def test_no_such_bundle(compile_command, tmp_path):
    code, report, _ = compile_command("finish", tmp_path / "none.irstd")
    assert (code, report["error"]["type"]) == (1, "BundleError")


def test_a_link_that_leads_to_itself(compile_command, tmp_path):
    path = tmp_path / "loop.irstd"
    path.symlink_to(path)
    code, answer, _ = compile_command("finish", path)
    assert (code, answer["error"]["type"]) == (1, "BundleError")
    assert "loop.irstd: " in answer["error"]["message"]
