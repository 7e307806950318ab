"""nvidia-smi's CSV as recorded on cards and boards; tools that are missing, hang, fail or rave."""

import stat
import tracemalloc

import pytest

from irstd.errors import DeviceError
from irstd.runtime.machine.identity import read_driver
from irstd.runtime.machine.nvidia_smi import FIELDS, parse_gpus, query_gpus
from irstd.runtime.machine.packages import installed_packages
from irstd.runtime.machine.tools import MAX_BYTES, Answer, ask

HEADER = (
    "name, driver_version, compute_cap, memory.total [MiB], memory.used [MiB], "
    "clocks.current.sm [MHz], clocks.max.sm [MHz], temperature.gpu, power.draw [W], "
    "power.limit [W]\n"
)
RTX_4090 = (
    "NVIDIA GeForce RTX 4090, 580.95.05, 8.9, 24564 MiB, 1338 MiB, 210 MHz, 3105 MHz, 38, "
    "21.51 W, 450.00 W\n"
)
ORIN = "Orin (nvgpu), 540.4.0, 8.7, [N/A], [N/A], [N/A], [N/A], [N/A], [N/A], [N/A]\n"
THOR = "NVIDIA Thor, 580.00, 11.0, [N/A], [N/A], 1575 MHz, 1575 MHz, 63, [N/A], [N/A]\n"


def test_desktop_card():
    (gpu,) = parse_gpus(HEADER + RTX_4090)
    assert (gpu.name, gpu.driver_version) == ("NVIDIA GeForce RTX 4090", "580.95.05")
    assert gpu.compute_capability == (8, 9)
    assert (gpu.memory_total_mb, gpu.memory_used_mb) == (24564.0, 1338.0)
    assert (gpu.sm_clock_mhz, gpu.max_sm_clock_mhz) == (210.0, 3105.0)
    assert (gpu.temperature_c, gpu.power_w, gpu.power_limit_w) == (38.0, 21.51, 450.0)


def test_boards_that_say_little():
    orin, thor = parse_gpus(HEADER + ORIN + THOR)
    assert (orin.name, orin.compute_capability, orin.memory_total_mb) == (
        "Orin (nvgpu)",
        (8, 7),
        None,
    )
    assert (thor.compute_capability, thor.temperature_c) == ((11, 0), 63.0)
    unknown = parse_gpus("name, driver_version\nOrin (nvgpu), N/A\n")[0]
    assert unknown.driver_version is None


@pytest.mark.parametrize(
    "text",
    [
        "", "\n", "No devices were found\n", "name\n", HEADER, HEADER + "a, b\n", HEADER + ",,,\n",
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure "
        "that the latest NVIDIA driver is installed and running.\n",
        "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 570.86",
        HEADER + "\0" * 500, '"' * 9999, HEADER + '"unclosed, 1, 2\n', "name" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_list(text):
    assert parse_gpus(text) == ()


def test_values_that_are_none():
    row = "Card, 1;rm -rf /, 8.x, lots, [Unknown Error], , -, nan, inf W, [Not Supported]\n"
    (gpu,) = parse_gpus(HEADER + row)
    assert gpu.driver_version is None
    assert [value for name, value in vars(gpu).items() if name != "name"] == [None] * 9


def test_field_that_an_old_driver_does_not_know():
    """470 lacks compute_cap, and answers the whole query with that."""
    asked = []

    def run(command):
        asked.append(command[1])
        if "compute_cap" in command[1]:
            text = 'Field "compute_cap" is not a valid field to query.\n'
            return Answer(text, "nvidia-smi fails: " + text)
        return Answer("name, driver_version\nNVIDIA GeForce RTX 3070, 470.182.03\n")

    gpus, answer = query_gpus(run)
    assert answer.problem is None
    assert [gpu.name for gpu in gpus] == ["NVIDIA GeForce RTX 3070"]
    assert len(asked) == 2


def test_driver_that_refuses_every_field():
    def run(command):
        field = command[1].partition("=")[2].partition(",")[0]
        return Answer(problem=f'Field "{field}" is not a valid field to query.')

    gpus, answer = query_gpus(run)
    assert gpus == ()
    assert FIELDS[-1] in answer.problem


@pytest.fixture
def make_tool(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def make(name, script):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IEXEC)

    return make


def test_tool_that_is_missing():
    answer = ask(["no-such-tool"])
    assert (answer.installed, answer.problem) == (False, "no-such-tool is not installed")


def test_tool_that_hangs(make_tool):
    make_tool("hang", "echo half; sleep 60; echo never")  # the child holds the pipe, too
    assert ask(["hang"], timeout_s=0.5).problem == "hang did not answer within 0.5 s"
    assert ask(["hang"], timeout_s=0.5, endless=True).text == "half\n"


def test_tool_that_fails(make_tool):
    make_tool("root_only", "echo 'Error: Run this script(/usr/bin/x) as a root user'; exit 1")
    assert ask(["root_only"]).problem == (
        "root_only fails: Error: Run this script(/usr/bin/x) as a root user"
    )
    make_tool("silent", "exit 9")
    assert ask(["silent"]).problem == "silent fails: exit 9"


def test_tool_that_does_not_run(make_tool, tmp_path):
    make_tool("odd", "")
    (tmp_path / "odd").write_bytes(b"\x7fELF nonsense")
    assert "odd does not run" in ask(["odd"]).problem


def test_tool_that_raves(make_tool):
    make_tool("rave", "printf '\\377\\376\\0'; head -c 1000000 /dev/zero")
    answer = ask(["rave"])
    assert answer.problem is None
    assert len(answer.text) <= MAX_BYTES


def test_a_tool_that_never_stops_does_not_fill_the_memory(make_tool):
    make_tool("flood", "yes a long line of nothing >&2 & exec yes a long line of nothing")
    tracemalloc.start()
    try:
        answer = ask(["flood"], timeout_s=0.5, endless=True)
        assert tracemalloc.get_traced_memory()[1] < 8 * MAX_BYTES
    finally:
        tracemalloc.stop()
    assert len(answer.text) == MAX_BYTES


def test_packages_although_one_is_unknown(make_tool):
    make_tool(
        "dpkg-query", "printf 'libnvinfer10\\t10.3.0.30-1+cuda12.5\\tii \\n'; echo no >&2; exit 1"
    )
    assert installed_packages() == {"libnvinfer10": "10.3.0.30-1+cuda12.5"}


def no_tool(command, **_):
    return Answer("", problem="not there")


def test_driver_of_a_jetson_of_a_module_and_of_windows(tmp_path):
    asked = []

    def smi(command, **_):
        asked.append(command)
        return Answer("name, driver_version\nNVIDIA GeForce RTX 4060, 580.97\n")

    assert read_driver(tmp_path, smi) == "580.97"
    assert asked
    module = tmp_path / "sys/module/nvidia/version"
    module.parent.mkdir(parents=True)
    module.write_text("570.124.06\n")
    assert read_driver(tmp_path, no_tool) == "570.124.06"
    release = tmp_path / "etc/nv_tegra_release"
    release.parent.mkdir()
    release.write_text("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n")
    assert read_driver(tmp_path, no_tool) == "L4T 36.4.3"


def test_no_driver_at_all(tmp_path):
    with pytest.raises(DeviceError, match=r"no NVIDIA driver is loaded: neither .*nvidia-smi"):
        read_driver(tmp_path, no_tool)
