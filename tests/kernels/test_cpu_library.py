"""Compiling kernels where they are used: found again, told apart, and refused with a reason."""

import os

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


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written_is_said(cache, source):
    cache.mkdir(mode=0o500)
    with pytest.raises(BuildError, match="set IRSTD_CACHE"):
        build_shared_library("one", [source], FLAGS)


def test_a_cache_that_is_a_file_is_said(cache, source):
    cache.write_text("")
    with pytest.raises(BuildError, match="set IRSTD_CACHE"):
        build_shared_library("one", [source], FLAGS)
