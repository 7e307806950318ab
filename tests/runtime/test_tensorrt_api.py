"""What is wrong with a TensorRT that cannot be used, and what its log says; no bindings needed."""

import logging
import sys
import types
from pathlib import Path

import pytest

from irstd.errors import MissingDependency
from irstd.runtime.tensorrt import api
from irstd.runtime.tensorrt.api import LOG_LINES, Log, Version, known_bad, load_tensorrt, version_of


def tensorrt(version, **attributes):
    module = types.ModuleType("tensorrt")
    module.__dict__.update({"__version__": version, "Runtime": object, **attributes})
    return module


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("8.6.2", Version(8, 6, 2)),
        ("10.3.0", Version(10, 3)),
        ("10.13.3.9.post1", Version(10, 13, 3, 9)),
        ("11.4.0.106", Version(11, 4, 0, 106)),
        ("10.0.0b6", Version(10, 0)),
    ],
)
def test_versions_are_read(text, wanted):
    assert version_of(tensorrt(text)) == wanted


@pytest.mark.parametrize("text", ["", "ten", "10", ".3"])
def test_what_has_no_version_is_not_tensorrt(text):
    with pytest.raises(MissingDependency, match="is not NVIDIA's"):
        version_of(tensorrt(text))


def test_versions_are_ordered_as_numbers():
    assert Version(10, 3) < Version(10, 13) < Version(10, 13, 3, 9) < Version(11, 0)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("8.5.2", r"TensorRT 8\.5\.2; wanted 8\.6\.0 or later: JetPack 6"),
        ("10.2.0", r"TensorRT 10\.2\.0 is known to be bad: .*24367\); install 10\.3 or later"),
        ("10.2.0.19", r"TensorRT 10\.2\.0\.19 is known to be bad"),
    ],
)
def test_unusable_versions_say_why(monkeypatch, version, message):
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt(version))
    with pytest.raises(MissingDependency, match=message):
        load_tensorrt()


@pytest.mark.parametrize("version", ["8.6.1", "10.1.0", "10.3.0", "11.4.0.106"])
def test_usable_versions_load(monkeypatch, version):
    module = tensorrt(version)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    assert load_tensorrt() is module


def test_every_bad_version_says_what_happens_and_what_to_do():
    for bad in api.KNOWN_BAD:
        assert bad.first <= bad.last
        assert "#" in bad.reason
        assert known_bad(bad.first) is bad


@pytest.fixture
def broken_package(tmp_path, monkeypatch):
    """Return a function (source) that puts a package `tensorrt` first on the path."""

    def write(source):
        package = tmp_path / "tensorrt"
        package.mkdir()
        (package / "__init__.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "tensorrt", raising=False)

    yield write
    sys.modules.pop("tensorrt", None)


def test_a_library_that_does_not_load_is_named(broken_package):
    said = "libnvinfer.so.10: cannot open shared object file: No such file or directory"
    broken_package(f"raise ImportError({said!r})")
    with pytest.raises(MissingDependency, match=r"does not load \(libnvinfer\.so\.10: cannot open"):
        load_tensorrt()


def test_a_package_that_tensorrt_lacks_is_named(broken_package):
    broken_package("import numpie")
    with pytest.raises(MissingDependency, match="tensorrt lacks the package numpie"):
        load_tensorrt()


def test_a_folder_of_that_name_is_not_tensorrt(broken_package):
    broken_package("")
    with pytest.raises(MissingDependency, match=r"tensorrt/__init__\.py is not NVIDIA's"):
        load_tensorrt()


def block(monkeypatch):
    """Make `import tensorrt` fail as if it were nowhere."""

    def find(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(api.importlib, "import_module", find)


def test_absence_names_the_command_that_installs(monkeypatch):
    block(monkeypatch)
    monkeypatch.setattr(api, "_system_packages", lambda: None)
    with pytest.raises(MissingDependency, match=r"not installed; Jetson: sudo apt install"):
        load_tensorrt()


def test_a_virtual_environment_that_hides_it_is_named(monkeypatch, tmp_path):
    block(monkeypatch)
    hidden = Path("/usr/lib/python3.10/dist-packages")
    monkeypatch.setattr(api, "_system_packages", lambda: hidden)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(MissingDependency, match="hidden by the virtual environment") as caught:
        load_tensorrt()
    assert f"include-system-site-packages = true in {tmp_path}/pyvenv.cfg" in str(caught.value)


def test_the_systems_folder_is_found(tmp_path):
    assert api._system_packages([tmp_path]) is None
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folder = tmp_path / "lib" / version / "dist-packages"
    (folder / "tensorrt").mkdir(parents=True)
    assert api._system_packages([tmp_path]) == folder


def test_the_last_lines_are_kept():
    log = Log()
    for number in range(LOG_LINES + 7):
        log.add("info", f"line {number}\n")
    assert log.lines[0] == "[info] line 7"
    assert log.lines[-1] == f"[info] line {LOG_LINES + 6}"
    assert len(log.lines) == LOG_LINES
    log.clear()
    assert log.lines == ()


def test_an_error_tells_what_is_grave():
    log = Log()
    for number in range(20):
        log.add("info", f"detail {number}")
        log.add("error" if number % 2 else "warning", f"trouble {number}")
    first, *lines = log.explain("no engine").splitlines()
    assert first == "no engine; TensorRT's log says:"
    assert len(lines) == api.TOLD_LINES
    assert lines[-1] == "  [error] trouble 19"
    assert not any("detail" in line for line in lines)


def test_an_error_without_grave_lines_tells_the_last_ones():
    log = Log()
    assert log.explain("no engine") == "no engine; TensorRT's log says nothing"
    log.add("info", "about to\nstop")
    assert log.explain("no engine").splitlines()[1] == "  [info] about to stop"


def test_the_log_reaches_logging(caplog):
    with caplog.at_level(logging.DEBUG, logger=api.__name__):
        Log().add("warning", "slow")
        Log().add("verbose", "tactic")
    assert [(r.levelname, r.message) for r in caplog.records] == [
        ("WARNING", "slow"),
        ("DEBUG", "tactic"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)",
        "Error Code 2: OutOfMemory (Requested size was 104857600 bytes.)",
        "Skipping tactic 1 due to insufficient memory on requested size of 471859200 detected for",
        "CUDA initialization failure with error: 2. Please check your CUDA installation",
    ],
)
def test_lines_that_say_that_memory_is_short(line):
    assert api.OUT_OF_MEMORY.search(line)


def test_another_error_of_cuda_is_no_lack_of_memory():
    assert not api.OUT_OF_MEMORY.search("CUDA initialization failure with error: 222")
