"""Content keys that never collide by accident, and the machine in a report."""

import hashlib
import json
import struct
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irstd.errors import UsageError
from irstd.fingerprint import (
    CPU_FLAGS,
    LIBRARIES,
    canonical_json,
    content_key,
    environment,
    installed_libraries,
    read_environment,
)
from irstd.types import InputSpec, Precision
from irstd.version import __version__

DIFFERENT: tuple[tuple[object, ...], ...] = (
    (),
    ("",),
    (b"",),
    ("", ""),
    ("ab", "c"),
    ("a", "bc"),
    ("abc",),
    (b"abc",),
    ("1",),
    (b"1",),
    (1,),
    (1.5,),
    (True,),
    (None,),
    ("null",),
    ({"a": 1},),
    ({"a": "1"},),
    ({"a": 1, "b": 2},),
    ({"a": 1}, {"b": 2}),
    ([1, 2],),
    ([[1], 2],),
    ('{"a": 1}',),
)


def test_keys_of_different_sequences_differ() -> None:
    assert len({content_key(*parts) for parts in DIFFERENT}) == len(DIFFERENT)


def test_key_is_a_hash_of_kinds_lengths_and_data() -> None:
    """Spelt out, because a changed key makes every cache useless: only on purpose."""
    parts = (b"s", b"stage"), (b"b", b"\0\1"), (b"j", b'{"a": "\\u00fc", "b": [1.5, null]}')
    packed = b"".join(kind + struct.pack("<Q", len(data)) + data for kind, data in parts)
    key = content_key("stage", b"\0\1", {"b": [1.5, None], "a": "\xfc"})
    assert key == hashlib.sha256(packed).hexdigest()


def test_equal_values_have_equal_keys() -> None:
    spec = InputSpec(8, 8, (1.0,), (0.0,), (0.0,))
    key = content_key({"a": 1, "b": {"d": (1, 2), "c": Precision.INT8}})
    other = MappingProxyType({"b": {"c": "int8", "d": [1, 2]}, "a": np.int64(1)})
    assert content_key(other) == key
    assert content_key(bytearray(b"ab")) == content_key(memoryview(b"ab")) == content_key(b"ab")
    assert content_key(spec) != content_key(InputSpec(8, 9, (1.0,), (0.0,), (0.0,)))


part = st.text() | st.binary() | st.dictionaries(st.text(), st.integers() | st.text(), max_size=3)


@settings(max_examples=100, deadline=None)
@given(st.lists(part, max_size=4), st.lists(part, max_size=4))
def test_keys_are_equal_just_for_equal_sequences(first: list[object], second: list[object]) -> None:
    assert (content_key(*first) == content_key(*second)) == (first == second)


@pytest.mark.parametrize(
    "bad", [object(), {1: "a"}, {"a": {None: 1}}, Path("a"), {"a": {1, 2}}, float("nan"),
            {"a": [float("inf")]}, np.zeros(3)],
)  # fmt: skip
def test_what_has_no_json_is_refused(bad: object) -> None:
    with pytest.raises(UsageError) as caught:
        content_key("a", bad)
    assert len(str(caught.value).splitlines()) == 1


def test_canonical_json_is_json() -> None:
    value = {"z": [1, 2.5, None], "a": {"ü": "\ud800", "b": False}}
    text = canonical_json(value)
    assert text.isascii()
    assert json.loads(text) == value
    assert text.index('"a"') < text.index('"z"')


def test_environment_of_this_machine_is_json() -> None:
    report = environment()
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["sdk_version"] == __version__
    assert report["cpu_cores"] >= 1
    assert report["cpu_model"]
    assert report["libraries"]["numpy"] == np.__version__
    assert set(report["libraries"]) <= set(LIBRARIES)


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_environment_of_an_x86_machine(tmp_path: Path) -> None:
    core = "model name\t: Some CPU @ 3.00GHz\ncpu MHz\t: 2600.5\nflags\t: fpu amx_int8 avx2 sse\n\n"
    write(tmp_path, "proc/cpuinfo", core + core.replace("Some", "Other"))
    write(tmp_path, "proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 1 kB\n")
    machine = read_environment(tmp_path)
    assert machine.cpu_model == "Some CPU @ 3.00GHz"
    assert machine.cpu_flags == ("avx2", "amx_int8")
    assert machine.cpu_mhz == 2600.5
    assert machine.memory_gb == 16
    assert machine.cpu_governor is machine.device is None


def test_environment_of_a_jetson(tmp_path: Path) -> None:
    features = "Features\t: fp asimd asimddp sve\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n"
    write(tmp_path, "proc/cpuinfo", "processor\t: 0\nBogoMIPS\t: 62.50\n" + features)
    write(tmp_path, "proc/device-tree/model", "NVIDIA Jetson Orin Nano Developer Kit\0")
    write(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "schedutil\n")
    write(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1510400\n")
    machine = read_environment(tmp_path)
    assert machine.device == "NVIDIA Jetson Orin Nano Developer Kit"
    assert machine.cpu_model == "Arm implementer 0x41 part 0xd42"
    assert machine.cpu_flags == ("asimd", "asimddp", "sve")
    assert machine.cpu_governor == "schedutil"
    assert machine.cpu_mhz == 1510.4


@pytest.mark.parametrize("junk", ["", "\0\xff garbage", "MemTotal: many kB\ncpu MHz : fast\n"])
def test_environment_of_a_machine_that_tells_nothing(tmp_path: Path, junk: str) -> None:
    for name in ("proc/cpuinfo", "proc/meminfo"):
        write(tmp_path, name, junk)
    write(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", junk)
    machine = read_environment(tmp_path)
    assert machine.cpu_model
    assert machine.cpu_flags == ()
    assert machine.cpu_mhz is machine.memory_gb is None
    assert read_environment(tmp_path / "none").cpu_model == machine.cpu_model


def test_flags_are_told_in_one_order() -> None:
    assert len(set(CPU_FLAGS)) == len(CPU_FLAGS)


def test_versions_are_read_without_importing() -> None:
    """Asking for the version of torch must not cost its import."""
    script = (
        "import sys; from irstd.fingerprint import environment; environment();"
        "print({'torch', 'onnx', 'onnxruntime', 'openvino', 'cv2'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "set()"
    assert "numpy" in installed_libraries()
