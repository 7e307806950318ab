"""Compilers are found or asked for, and what they make is kept by content and written whole."""

import importlib.util
import stat
from configparser import ConfigParser
from types import SimpleNamespace

import pytest

from irstd.errors import BuildError, MissingDependency
from irstd.runtime.kernels.cuda import compiler, toolchain
from irstd.runtime.kernels.cuda.nvrtc import Nvrtc

KERNEL = """#include <cuda_fp16.h>
#include "{op}.hpp"
extern "C" __global__ void twice(const __half2* x, __half2* y) {{ y[0] = __hadd2(x[0], x[0]); }}
"""
HEADER = (
    "#pragma once\n#include <cstdint>\nconstexpr unsigned divide(unsigned a) { return a / 2; }\n"
)


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """A machine with no compiler: no PATH, no toolkit, no packages."""
    monkeypatch.delenv("CUDACXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(toolchain, "TOOLKIT", tmp_path / "toolkit")
    monkeypatch.setattr(toolchain, "TOOLKITS", tmp_path / "toolkits")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    return tmp_path


def make_nvcc(path, release):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}.88'\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return path


def make_package(monkeypatch, folder):
    spec = SimpleNamespace(submodule_search_locations=[str(folder)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)


def test_no_nvcc_is_told_with_the_command(alone):
    with pytest.raises(MissingDependency, match=r'pip install "cuda-toolkit\[nvcc.*==13\.0'):
        toolchain.find_nvcc()


def test_no_nvrtc_is_told_with_the_command(alone):
    with pytest.raises(MissingDependency, match=r'pip install "nvidia-cuda-nvrtc-cu12==12\.6'):
        toolchain.find_nvrtc()


def test_nvcc_of_another_release_is_named_and_passed_over(alone, monkeypatch):
    make_nvcc(alone / "nvcc", "12.6")
    with pytest.raises(MissingDependency, match=r"nvcc is of CUDA 12\.6"):
        toolchain.find_nvcc()
    found = make_nvcc(alone / "nvidia" / "cu13" / "bin" / "nvcc", "13.0")
    make_package(monkeypatch, alone / "nvidia")
    assert toolchain.find_nvcc() == [str(found)]
    found = make_nvcc(alone / "toolkit" / "bin" / "nvcc", "13.2")
    assert toolchain.find_nvcc() == [str(found)]


def test_nvcc_that_is_asked_for_is_taken_as_it_is(alone, monkeypatch):
    monkeypatch.setenv("CUDACXX", f"{make_nvcc(alone / 'mine', '12.9')} -ccbin g++-12")
    assert toolchain.find_nvcc() == [str(alone / "mine"), "-ccbin", "g++-12"]
    monkeypatch.setenv("CUDACXX", "absent")
    with pytest.raises(MissingDependency, match="CUDACXX=absent: no such program"):
        toolchain.find_nvcc()


def test_nvrtc_needs_its_headers_beside_it(alone, monkeypatch):
    library = alone / "nvidia" / "cuda_nvrtc" / "lib" / "libnvrtc.so.12"
    header = alone / "nvidia" / "cuda_runtime" / "include" / "cuda_fp16.h"
    for file in (library, header):
        with pytest.raises(MissingDependency):
            toolchain.find_nvrtc()
        file.parent.mkdir(parents=True)
        file.write_text("")
        make_package(monkeypatch, alone / "nvidia")
    assert toolchain.find_nvrtc() == (library, header.parent)


def test_the_extra_is_what_messages_ask_for(root):
    parser = ConfigParser()
    parser.read(root / "setup.cfg")
    lines = parser["options.extras_require"]["cuda-build"].split("\n")[1:]
    assert lines == [*toolchain.NVCC_PACKAGES, *toolchain.NVRTC_PACKAGES]


@pytest.fixture
def op(monkeypatch, tmp_path):
    """The name of an operator in a tree of its own, and a cache of its own."""
    folder = tmp_path / "kernels" / "double"
    folder.mkdir(parents=True)
    (folder / "double.cu").write_text(KERNEL.format(op="double"))
    (folder / "double.hpp").write_text(HEADER)
    monkeypatch.setattr(compiler, "FOLDER", folder.parent)
    monkeypatch.setenv("IRSTD_CACHE", str(tmp_path / "cache"))
    return folder


def test_unknown_operator_is_told_with_those_there_are(op):
    with pytest.raises(BuildError, match="no CUDA kernel 'triple'; there are: double"):
        compiler.build_fatbin("triple")


def test_fatbin_has_every_architecture_and_is_kept(op, require_nvcc, monkeypatch):
    path = compiler.build_fatbin("double")
    ptxas = path.with_suffix(".ptxas").read_text()
    assert [f"'sm_{a}'" in ptxas for a in compiler.ARCHITECTURES] == [True] * 6
    monkeypatch.setattr(compiler, "compiled", None)
    assert compiler.build_fatbin("double") == path


def test_what_is_kept_depends_on_source_headers_and_flags(op, require_nvcc):
    first = compiler.build_cubin("double", 87)
    assert first.read_bytes()[:4] == b"\x7fELF"
    assert compiler.build_cubin("double", 86) != first
    (op / "double.hpp").write_text(HEADER + "// more\n")
    second = compiler.build_cubin("double", 87)
    (op / "double_cpu.hpp").write_text("")  # not included
    assert second == compiler.build_cubin("double", 87) != first


def test_headers_of_headers_count(op):
    shared = op.parent / "shared.hpp"
    shared.write_text("#pragma once\n")
    (op / "double.hpp").write_text('#include "../shared.hpp"\n  # include "double.hpp"\n')
    source = compiler.source_of("double")
    assert compiler.included(source) == sorted([source, op / "double.hpp", shared])


def test_ptx_is_for_the_lowest_architecture(op, require_nvcc):
    assert ".target sm_86" in compiler.build_ptx("double").read_text()


def test_source_that_is_refused_is_told_in_one_line(op, require_nvcc):
    (op / "double.cu").write_text("__global__ void f() { undeclared(); }")
    with pytest.raises(BuildError, match='identifier "undeclared" is undefined') as caught:
        compiler.build_fatbin("double")
    assert "\n" not in str(caught.value)
    assert not list(compiler.cache_dir().rglob("*.fatbin"))


def test_cache_that_cannot_be_written_is_told(op, require_nvcc, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(BuildError, match="set IRSTD_CACHE to a folder that can"):
        compiler.build_ptx("double")


def test_nvrtc_compiles_for_drivers_of_cuda_12(op, require_nvrtc, monkeypatch):
    built = compiler.build_cubins("double")
    assert tuple(built) == compiler.CUDA_12_ARCHITECTURES
    assert all(path.read_bytes()[:4] == b"\x7fELF" for path in built.values())
    monkeypatch.setattr(Nvrtc, "cubin", None)
    assert compiler.build_cubins("double") == built


def test_nvrtc_refuses_in_one_line(op, require_nvrtc):
    (op / "double.cu").write_text("__global__ void f() { undeclared(); }")
    with pytest.raises(BuildError, match=r"NVRTC 12.* refuses double.cu: .*undeclared"):
        compiler.build_cubins("double")


def test_library_that_is_none_is_told(tmp_path):
    path = tmp_path / "libnvrtc.so.12"
    path.write_text("no library")
    with pytest.raises(MissingDependency, match="does not load"):
        Nvrtc(path)


@pytest.mark.parametrize("op_name", ["haar_gate", "ms_deform_attn", "spectral_split"])
def test_every_operator_compiles_for_jetpack_6(require_nvrtc, op_name):
    assert list(compiler.build_cubins(op_name, (87,))) == [87]
