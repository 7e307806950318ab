"""Compiling kernels where they are used: found again, told apart, and refused with a reason."""

import ctypes
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from irstd.errors import BuildError, MissingDependency
from irstd.runtime.kernels.cpu_library import build_shared_library

FLAGS = ("-shared", "-fPIC")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IRSTD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "one.cpp"
    path.write_text('extern "C" int one() { return 1; }\n')
    return path


def test_the_same_sources_are_compiled_once(cache, source):
    first = build_shared_library("one", [source], FLAGS)
    made_ns = first.stat().st_mtime_ns
    assert build_shared_library("one", [source], FLAGS) == first
    assert first.stat().st_mtime_ns == made_ns
    assert [path.name for path in (cache / "kernels").iterdir()] == [first.name]


def test_other_sources_and_flags_are_other_libraries(cache, source):
    first = build_shared_library("one", [source], FLAGS)
    assert build_shared_library("one", [source], (*FLAGS, "-O1")) != first
    source.write_text('extern "C" int one() { return 2; }\n')
    assert build_shared_library("one", [source], FLAGS) != first


def test_sources_that_do_not_compile_leave_nothing(cache, source):
    source.write_text("int one( {\n")
    with pytest.raises(BuildError, match=r"refuses the kernels: .*one\.cpp:1:.* error"):
        build_shared_library("one", [source], FLAGS)
    assert not cache.exists()


def test_no_compiler_is_said(cache, source, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(MissingDependency, match=r"no C\+\+ compiler \(g\+\+\); install g\+\+"):
        build_shared_library("one", [source], FLAGS)


def test_the_compiler_can_be_chosen(cache, source, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    with pytest.raises(MissingDependency, match="no-such-compiler -O2"):
        build_shared_library("one", [source], FLAGS)
    monkeypatch.setenv("CXX", "g++ -O1")
    assert build_shared_library("one", [source], FLAGS).is_file()


def program(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


COMPILERS = {
    "makes nothing": ("#!/bin/sh\nexit 0\n", r"made nothing \(.*No such file"),
    "is silent": ("#!/bin/sh\n[ $1 = --version ] || exit 4\n", "exit code 4, without a word"),
    "is killed": ("#!/bin/sh\n[ $1 = --version ] || kill -9 $$\n", "exit code -9"),
    "is no program": ("", "does not run .*Exec format error"),
    "has no letters": (
        "#!/bin/sh\n[ $1 = --version ] || { printf '\\377 error\\n'; exit 1; }\n", "\ufffd error"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), COMPILERS.values(), ids=COMPILERS)
def test_compilers_that_fail_leave_nothing_and_are_told(
    text, message, cache, source, monkeypatch, tmp_path
):
    monkeypatch.setenv("CXX", program(tmp_path / "compiler", text))
    with pytest.raises(BuildError, match=message) as error:
        build_shared_library("one", [source], FLAGS)
    assert "\n" not in str(error.value)
    assert not cache.exists()


def test_a_compiler_behind_another_program_is_known_by_its_own_version(
    cache, source, monkeypatch, tmp_path
):
    """As with ccache, whose version says nothing of the compiler."""
    wrapper = program(tmp_path / "wrapper", '#!/bin/sh\nexec "$@"\n')
    made = []
    for version in ("1", "2"):
        text = f'#!/bin/sh\n[ $1 = --version ] && echo {version} && exit 0\nexec g++ "$@"\n'
        monkeypatch.setenv("CXX", f"{wrapper} {program(tmp_path / f'g++{version}', text)}")
        made.append(build_shared_library("one", [source], FLAGS))
    assert made[0] != made[1]


def test_without_room_for_temporary_files(cache, source, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(BuildError, match=r"made nothing .*gone"):
        build_shared_library("one", [source], FLAGS)


def test_processes_that_compile_at_the_same_time_agree(cache, source, run_python):
    code = """
import os, sys
from pathlib import Path
from irstd.runtime.kernels.cpu_library import build_shared_library
os.environ["IRSTD_CACHE"] = sys.argv[2]
print(build_shared_library("one", [Path(sys.argv[1])], ("-shared", "-fPIC")))
"""
    with ThreadPoolExecutor(3) as pool:
        said = list(pool.map(lambda _: run_python(code, str(source), str(cache)).strip(), range(3)))
    assert len(set(said)) == 1
    assert [str(path) for path in (cache / "kernels").iterdir()] == said[:1]
    assert ctypes.CDLL(said[0]).one() == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written_is_said(cache, source):
    cache.mkdir(mode=0o500)
    with pytest.raises(BuildError, match="set IRSTD_CACHE"):
        build_shared_library("one", [source], FLAGS)


def test_a_cache_that_is_a_file_is_said(cache, source):
    cache.write_text("")
    with pytest.raises(BuildError, match="set IRSTD_CACHE"):
        build_shared_library("one", [source], FLAGS)
