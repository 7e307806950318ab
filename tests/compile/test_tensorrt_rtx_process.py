"""The process that builds for RTX: whatever becomes of it, the caller gets one clear line.

Stand-ins for the library play what the genuine one cannot be made to do: they end early, hang, do
not load, and print where answers are expected. The genuine one is in test_tensorrt_rtx.py.
"""

import pytest

from irstd.compile.builders import tensorrt_rtx
from irstd.errors import BuildError, MissingDependency


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Return a function that puts a module `tensorrt_rtx` of this source before the genuine one."""

    def put(source):
        (tmp_path / "tensorrt_rtx.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)

    return put


def test_not_installed_says_how_to_install(monkeypatch):
    monkeypatch.setattr(tensorrt_rtx, "MODULES", ("no_such_module",))
    assert tensorrt_rtx.rtx_library() is None
    with pytest.raises(MissingDependency, match=r"pip install 'irstd-sdk\[rtx\]'"):
        tensorrt_rtx.build_rtx_engine(b"", (8, 9))


def test_a_library_that_does_not_load_is_a_missing_dependency(stand_in):
    stand_in("raise ImportError('libtensorrt_rtx.so.1: cannot open shared object file')")
    assert tensorrt_rtx.rtx_library() == "tensorrt_rtx of unknown version"
    with pytest.raises(MissingDependency, match=r"does not load.*libtensorrt_rtx.*pip install"):
        tensorrt_rtx.build_rtx_engine(b"x" * 1_000_000, (8, 9))  # more than a pipe holds


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("import os; os.abort()", "by signal 6: it said nothing; report this"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "by signal 9.*close other"),
        ("raise ValueError('what\\nis this')", "with exit code 1: is this"),
        ("import sys; print('{\"progress\"'); sys.exit(3)", "with exit code 3"),
    ],
)
def test_an_early_end_says_how(stand_in, source, wanted):
    stand_in(source)
    with pytest.raises(BuildError, match=wanted):
        tensorrt_rtx.build_rtx_engine(b"x", (8, 9))


def test_a_build_that_hangs_is_stopped(stand_in):
    stand_in("import time; time.sleep(60)")
    with pytest.raises(BuildError, match=r"no engine within 0\.5 s and was stopped"):
        tensorrt_rtx.build_rtx_engine(b"x", (8, 9), timeout_s=0.5)


def test_an_answer_that_is_cut_short_is_no_engine(stand_in):
    """As when the disk of a swapping machine is full: a plan of 3 of 9 bytes."""
    stand_in(
        "from irstd.compile.builders import tensorrt_rtx_worker as worker\n"
        "def build(trt, model, capability, answers):\n"
        "    worker._answer(answers, {'plan_bytes': 9, 'library': '', 'layers': '', 'log': []})\n"
        "    answers.write(b'abc')\n"
        "worker._build = build\n"
    )
    with pytest.raises(BuildError, match="with exit code 0"):
        tensorrt_rtx.build_rtx_engine(b"x", (8, 9))


def test_what_the_working_directory_holds_is_not_imported(stand_in, tmp_path, monkeypatch):
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "json.py").write_text("raise SystemExit(77)")
    monkeypatch.chdir(folder)
    stand_in("import os; os.abort()")
    with pytest.raises(BuildError, match="by signal 6"):
        tensorrt_rtx.build_rtx_engine(b"x", (8, 9))
