"""How the sessions of TensorRT are found and refused, without any TensorRT.

What they do is in tests/contract (genuine classes) and tests/kernels (genuine driver packages).
"""

import sys
import types

import pytest

from irstd.errors import MissingDependency, UsageError
from irstd.runtime.sessions import ENGINES, SESSIONS, installed_sessions, open_session
from irstd.runtime.sessions.tensorrt_session import open_plan

TENSORRT = ("tensorrt", "tensorrt_bindings")
RTX = ("tensorrt_rtx", "tensorrt_rtx_bindings")


@pytest.fixture
def absent(monkeypatch):
    for name in (*TENSORRT, *RTX):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])


class Absent:
    """A finder by which no TensorRT is installed."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in (*TENSORRT, *RTX):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def test_users_may_ask_for_both():
    assert {"tensorrt", "tensorrt_rtx"} <= set(ENGINES) <= set(SESSIONS)


@pytest.mark.parametrize(
    ("installed", "found"),
    [
        ({"tensorrt"}, ["tensorrt"]),
        ({"tensorrt_rtx"}, ["tensorrt_rtx"]),
        ({"tensorrt_rtx_bindings"}, ["tensorrt_rtx"]),
        ({"tensorrt_bindings"}, []),
    ],
)
def test_what_is_installed_is_found_without_loading_it(monkeypatch, installed, found):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name in installed or None)
    assert installed_sessions() == found


@pytest.mark.parametrize(
    ("name", "command"),
    [("tensorrt", "nvidia-jetpack"), ("tensorrt_rtx", r"pip install 'irstd-sdk\[rtx\]'")],
)
def test_what_is_not_installed_names_the_command(absent, name, command):
    with pytest.raises(MissingDependency, match=command):
        open_session(name, b"plan")


@pytest.mark.parametrize(
    ("wanted", "loaded"),
    [("tensorrt", name) for name in RTX] + [("tensorrt_rtx", name) for name in TENSORRT],
)
def test_two_in_one_process_are_refused(absent, monkeypatch, wanted, loaded):
    monkeypatch.setitem(sys.modules, loaded, types.ModuleType(loaded))
    with pytest.raises(UsageError, match="in the same process is unsafe: use another process"):
        open_session(wanted, b"plan")


def test_a_broken_installation_is_not_called_missing(absent, monkeypatch, tmp_path):
    (tmp_path / "tensorrt_rtx.py").write_text(
        'raise ImportError("libtensorrt_rtx.so.1: cannot open shared object file")'
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [f for f in sys.meta_path if not isinstance(f, Absent)])
    with pytest.raises(MissingDependency, match=r"does not load \(libtensorrt_rtx\.so\.1: cannot"):
        open_session("tensorrt_rtx", b"plan")


def test_no_package_that_reaches_the_driver_is_told(monkeypatch):
    for name in ("pycuda", "pycuda.driver", "cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependency, match=r"neither .*pip install .*irstd-sdk\[cuda\]"):
        open_plan(types.ModuleType("tensorrt"), b"plan")


def test_the_runtime_loads_nothing_of_them(run_python):
    loaded = run_python("import irstd.runtime, sys; print(*sys.modules)").split()
    assert not {*TENSORRT, *RTX, "cuda", "pycuda", "irstd.runtime.tensorrt.execution"} & set(loaded)
    assert "irstd.runtime.sessions.tensorrt_session" in loaded


def test_threads_are_checked_before_anything_is_loaded(absent):
    with pytest.raises(UsageError, match="from 1 to 1024"):
        open_session("tensorrt", b"plan", threads=0)


@pytest.mark.parametrize("name", ["openvino", "onnxruntime", "tensorrt_rtx", "fake"])
def test_weights_are_for_plans_of_tensorrt(name):
    with pytest.raises(UsageError, match=f"weights for a session of {name}: wanted tensorrt"):
        open_session(name, b"graph", weights=b"graph")
