"""What the machine lacks is said with the command that mends it."""

import importlib.util

import pytest

from irstd.compile import doctor
from irstd.compile.doctor import describe_findings, examine


def finding(name):
    return next(found for found in examine() if found.name == name)


def test_everything_named_once():
    names = [found.name for found in examine()]
    assert len(set(names)) == len(names)
    wanted = {"onnxruntime", "openvino", "onnx", "onnxsim", "torch", "processor", "cache"}
    assert wanted <= set(names)


def test_a_fix_exactly_where_something_is_wrong():
    for found in examine():
        assert (found.fix is None) == found.ok
        assert found.found


@pytest.mark.parametrize(
    ("package", "extra"), [("openvino", "cpu"), ("onnx", "compile"), ("torch", "train")]
)
def test_missing_package_says_what_installs_it(package, extra, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        doctor.importlib.util, "find_spec", lambda name: None if name == package else real(name)
    )
    found = finding(package)
    assert not found.ok
    assert found.fix == f"pip install 'irstd-sdk[{extra}]'"


def test_a_board_needs_nothing_that_only_builds(monkeypatch, tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.3\n")
    real = importlib.util.find_spec
    needs = {name for name, _, _ in doctor._NEEDS}
    monkeypatch.setattr(
        doctor.importlib.util, "find_spec", lambda name: None if name in needs else real(name)
    )
    monkeypatch.setattr(doctor, "examine_gpu", lambda root: [])
    found = {found.name: found for found in examine(tmp_path)}
    assert all(found[name].ok for name in needs)
    assert "pip install 'irstd-sdk[viz]'" in found["matplotlib"].found


def environment_with(monkeypatch, **changes):
    facts = {**doctor.environment(), **changes}
    monkeypatch.setattr(doctor, "environment", lambda: facts)


def test_processor_without_dot_products(monkeypatch):
    environment_with(monkeypatch, cpu_flags=("avx2",))
    assert "no 8-bit dot product" in finding("processor").found
    environment_with(monkeypatch, cpu_flags=("avx2", "avx512_vnni"))
    assert "avx512_vnni" in finding("processor").found


@pytest.mark.parametrize(
    ("governor", "ok"), [("performance", True), (None, True), ("powersave", False)]
)
def test_governor(governor, ok, monkeypatch):
    environment_with(monkeypatch, cpu_governor=governor)
    assert finding("cpu governor").ok == ok


def test_cache_that_is_not_there_yet(monkeypatch, tmp_path):
    monkeypatch.setenv("IRSTD_CACHE", str(tmp_path / "a" / "b"))
    assert finding("cache").ok
    assert not (tmp_path / "a").exists()


def test_cache_that_cannot_be_written(monkeypatch, tmp_path):
    monkeypatch.setenv("IRSTD_CACHE", str(tmp_path))
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    found = finding("cache")
    assert (found.ok, found.fix) == (False, "export IRSTD_CACHE=DIR")


def test_full_disk(monkeypatch, tmp_path):
    monkeypatch.setenv("IRSTD_CACHE", str(tmp_path))
    monkeypatch.setattr(doctor, "_LOW_DISK_GB", 1e9)
    found = finding("cache")
    assert not found.ok
    assert "GiB free" in found.found


def test_lines_for_people(monkeypatch):
    environment_with(monkeypatch, cpu_governor="powersave")
    text = describe_findings(examine())
    assert "to do cpu governor: powersave\n      cpupower" in text
    assert "ok    processor:" in text
