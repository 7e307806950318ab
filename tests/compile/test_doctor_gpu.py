"""What `doctor` says of boards and cards, from files and answers as they were recorded."""

import dataclasses
import json
import sys

import pytest

from irstd.compile import doctor_tensorrt
from irstd.compile.doctor_gpu import examine_gpu
from irstd.runtime.machine.tools import Answer

ORIN_NANO = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.7, GCID: 42132812, BOARD: generic\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=25W >\n"
    "< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n",
    "proc/meminfo": "MemTotal:        7803128 kB\nMemAvailable:    4621344 kB\n"
    "SwapTotal:       3901564 kB\n",
    "proc/swaps": "Filename\tType\tSize\tUsed\tPriority\n"
    "/dev/zram0\tpartition\t650260\t0\t5\n/dev/zram1\tpartition\t650260\t0\t5\n",
    "usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "12.6.11"}}',
    "usr/include/aarch64-linux-gnu/NvInferRuntime.h": "",
}
ANSWERS = {
    "nvpmodel": Answer("NV Power Mode: 15W\n0\n"),
    "jetson_clocks": Answer(
        "GPU MinFreq=306000000 MaxFreq=612000000 CurrentFreq=306000000\n"
        "EMC MinFreq=204000000 MaxFreq=2133000000 CurrentFreq=2133000000 FreqOverride=0\n"
    ),
    "tegrastats": Answer(
        "RAM 3452/7620MB (lfb 25x4MB) cpu@50.031C tj@50.25C VDD_IN 4824mW/4824mW\n"
    ),
    "dpkg-query": Answer(
        "libnvinfer10\t10.3.0.30-1+cuda12.5\tii \nnvidia-jetpack\t6.2.1+b38\tii \n"
        "python3-libnvinfer\t10.3.0.30-1+cuda12.5\tii \n"
    ),
    sys.executable: Answer("version 10.3.0\n"),
}
CARD = (
    "name, driver_version, compute_cap, memory.total [MiB], memory.used [MiB], clocks.current.sm "
    "[MHz], clocks.max.sm [MHz], temperature.gpu, power.draw [W], power.limit [W]\n"
    "NVIDIA GeForce RTX 4090, 580.95.05, 8.9, 24564 MiB, 1338 MiB, 210 MHz, 3105 MHz, 38, "
    "21.51 W, 450.00 W\n"
)


@pytest.fixture
def versions(monkeypatch):
    """What pip has installed: a mapping that a test may change."""
    installed = {"cuda-python": "12.6.2", "cuda-bindings": "12.6.2"}

    def version(name):
        if name not in installed:
            raise doctor_tensorrt.importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(doctor_tensorrt.importlib.metadata, "version", version)
    return installed


@pytest.fixture
def look(tmp_path, versions):
    """A function (files, answers) -> findings by name."""

    def examine(files, answers):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                path.unlink(missing_ok=True)
            else:
                path.write_text(text)

        def run(command, *, timeout_s=0.0, endless=False):
            missing = Answer(problem=f"{command[0]} is not installed", installed=False)
            return answers.get(command[0], missing)

        found = examine_gpu(tmp_path, run)
        assert len({one.name for one in found}) == len(found)
        assert all((one.fix is None) == one.ok and one.found for one in found)
        json.dumps([dataclasses.asdict(one) for one in found])
        return {one.name: one for one in found}

    return examine


def test_board_as_it_comes(look):
    found = look(ORIN_NANO, ANSWERS)
    assert found["board"].found.startswith("NVIDIA Jetson Orin Nano")
    assert "6.2 (Jetson Linux 36.4.7, TensorRT 10.3, CUDA 12.6)" in found["jetpack"].found
    assert found["tensorrt"].ok
    assert found["power mode"].found == "15W; MAXN_SUPER is faster"
    assert found["power mode"].fix == "sudo nvpmodel -m 2"
    assert found["clocks"].fix == "sudo jetson_clocks"
    assert found["memory"].found == "4.4 of 7.4 GiB free"
    assert "zram" in found["swap"].found
    assert "mkswap" in found["swap"].fix
    assert found["temperature"].found == "50 C at the hottest"


def test_the_fastest_mode_has_another_number_on_another_module(look):
    files = ORIN_NANO | {
        "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN_SUPER >\n< POWER_MODEL ID=1 NAME=10W >\n"
    }
    assert look(files, ANSWERS)["power mode"].fix == "sudo nvpmodel -m 0"


def test_mode_with_most_watts_where_none_is_unlimited(look):
    files = ORIN_NANO | {
        "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=7W >\n"
    }
    assert look(files, ANSWERS)["power mode"].ok


def test_everything_set(look):
    answers = ANSWERS | {
        "nvpmodel": Answer("NV Power Mode: MAXN_SUPER\n2\n"),
        "jetson_clocks": Answer(
            "GPU MinFreq=1020000000 MaxFreq=1020000000 CurrentFreq=1020000000\n"
            "EMC MinFreq=204000000 MaxFreq=3199000000 CurrentFreq=3199000000 FreqOverride=1\n"
        ),
    }
    files = ORIN_NANO | {"proc/swaps": "Filename Type Size Used Priority\n/swapfile file 8 0 -2\n"}
    found = look(files, answers)
    assert [one.name for one in found.values() if not one.ok] == []
    assert found["clocks"].found == "fixed, GPU 1020 of 1020 MHz"


def test_no_tool_at_all_is_findings_not_a_crash(look):
    found = look(ORIN_NANO, {})
    for name in ("power mode", "clocks", "temperature", "tensorrt"):
        assert not found[name].ok
        assert found[name].fix.startswith("sudo apt install")


def test_clocks_that_only_root_may_see(look):
    said = "Error: Run this script(/usr/bin/jetson_clocks) as a root user\n"
    answers = ANSWERS | {"jetson_clocks": Answer(said, f"jetson_clocks fails: {said.strip()}")}
    assert look(ORIN_NANO, answers)["clocks"].fix == "sudo jetson_clocks --show"
    gpu = "sys/class/devfreq/17000000.gpu"
    files = ORIN_NANO | {
        f"{gpu}/{name}": "1020000000\n" for name in ("min_freq", "max_freq", "cur_freq")
    }
    found = look(files, answers)["clocks"]
    assert found.found == "fixed, GPU 1020 of 1020 MHz; the memory's is for root to see"


@pytest.mark.parametrize(
    ("release", "version", "ok"),
    [
        ("# R35 (release), REVISION: 4.1,", "5.1", False),
        ("# R36 (release), REVISION: 3.0,", "6.0", False),
        ("# R36 (release), REVISION: 4.0,", "6.1", True),
        ("# R38 (release), REVISION: 2.2,", "7.0", True),
        ("# R39 (release), REVISION: 2.1,", "7.2", True),
        ("# R77 (release), REVISION: 1.0,", "does not know", True),
        ("nonsense", "does not say", False),
    ],
)
def test_jetpack(release, version, ok, look):
    found = look(ORIN_NANO | {"etc/nv_tegra_release": release}, ANSWERS)["jetpack"]
    assert found.ok == ok
    assert version in found.found


def test_little_memory_and_heat(look):
    answers = ANSWERS | {"tegrastats": Answer("RAM 7000/7620MB tj@97.5C\n")}
    meminfo = "MemTotal: 7803128 kB\nMemAvailable: 600000 kB\nSwapTotal: 0 kB\n"
    found = look(ORIN_NANO | {"proc/meminfo": meminfo, "proc/swaps": ""}, answers)
    assert "isolate multi-user.target" in found["memory"].fix
    assert found["swap"].found.startswith("none")
    assert found["temperature"].fix == "sudo jetson_clocks --fan"


BINDINGS = "usr/lib/python3.10/dist-packages/tensorrt/tensorrt.so"


def test_bindings_for_another_python(look):
    answers = ANSWERS | {sys.executable: Answer("error TensorRT is not installed; x\n")}
    found = look(ORIN_NANO | {"usr/lib/python3.8/dist-packages/tensorrt/tensorrt.so": ""}, answers)
    assert "is for Python 3.8, this one is 3." in found["tensorrt"].found
    assert found["tensorrt"].fix.startswith("python3.8 -m venv --system-site-packages")


def test_bindings_hidden_by_a_virtual_environment(look, monkeypatch):
    monkeypatch.setattr(doctor_tensorrt.sys, "prefix", "/opt/venv")
    own = f"usr/lib/python{sys.version_info.major}.{sys.version_info.minor}/dist-packages/tensorrt"
    said = "error TensorRT is installed in /usr/lib, but hidden by the virtual environment x: y\n"
    found = look(ORIN_NANO | {f"{own}/tensorrt.so": ""}, ANSWERS | {sys.executable: Answer(said)})
    assert found["tensorrt"].found.endswith("hidden by the virtual environment /opt/venv")
    assert found["tensorrt"].fix.endswith("/opt/venv/pyvenv.cfg")


def test_bindings_not_installed(look):
    answers = ANSWERS | {sys.executable: Answer("error TensorRT is not installed; x\n")}
    assert look(ORIN_NANO, answers)["tensorrt"].fix == "sudo apt install python3-libnvinfer"
    del answers["dpkg-query"]
    assert look(ORIN_NANO, answers)["tensorrt"].fix == "sudo apt install nvidia-jetpack"


def test_import_that_ends_the_process(look):
    own = f"usr/lib/python{sys.version_info.major}.{sys.version_info.minor}/dist-packages/tensorrt"
    answers = ANSWERS | {sys.executable: Answer(problem="python fails: exit -11")}
    found = look(ORIN_NANO | {f"{own}/tensorrt.so": ""}, answers)["tensorrt"]
    assert (found.found, found.ok) == ("python fails: exit -11", False)
    assert "--reinstall" in found.fix


def test_pips_tensorrt_on_a_board(look):
    answers = ANSWERS | {sys.executable: Answer("version 10.13.3.9\n")}
    found = look(ORIN_NANO, answers)["tensorrt"]
    assert "10.13.3.9 for Python, but JetPack's library is 10.3.0.30" in found.found
    assert found.fix.startswith("pip uninstall")


def test_package_of_a_newer_cuda_than_the_driver(look, versions):
    versions.update({"cuda-python": "13.4.4", "cuda-bindings": "13.4.4"})
    found = look(ORIN_NANO, ANSWERS)["cuda for python"]
    assert "but the driver is of CUDA 12.6" in found.found
    assert found.fix == 'pip install "cuda-python==12.*"'
    versions.clear()
    assert not look(ORIN_NANO, ANSWERS)["cuda for python"].ok


def test_nothing_to_compile_plugins_with(look):
    files = ORIN_NANO | {
        "usr/local/cuda/version.json": None,
        "usr/include/aarch64-linux-gnu/NvInferRuntime.h": None,
    }
    found = look(files, ANSWERS)
    assert found["cuda toolkit"].fix == "sudo apt install cuda-toolkit-12-6"
    assert found["tensorrt headers"].fix == "sudo apt install libnvinfer-headers-dev"


def test_no_gpu(look):
    found = look({}, {})
    assert list(found) == ["gpu"]
    assert found["gpu"].ok


DRIVER = {"proc/driver/nvidia/version": "NVRM version: x\n"}


def test_card(look):
    found = look(DRIVER, {"nvidia-smi": Answer(CARD), sys.executable: ANSWERS[sys.executable]})
    assert found["driver"].found == "580.95.05, of CUDA 13"
    assert found["gpu"].found == "NVIDIA GeForce RTX 4090, sm_89: --target rtx-40"
    assert found["gpu memory"].found == "22.7 of 24.0 GiB free"
    assert "3105 MHz, 38 C" in found["gpu clocks"].found


def test_card_with_a_driver_of_cuda_12(look, versions):
    """What `pip install tensorrt` brings is for CUDA 13, and imports all the same."""
    card = Answer(CARD.replace("580.95.05", "550.144.03"))
    found = look(DRIVER, {"nvidia-smi": card})["tensorrt"]
    assert found.fix == "pip install tensorrt-cu12"
    answers = {"nvidia-smi": card, sys.executable: ANSWERS[sys.executable]}
    assert look(DRIVER, answers)["tensorrt"].ok
    versions["tensorrt-cu13-bindings"] = "10.3.0"
    found = look(DRIVER, answers)["tensorrt"]
    assert (found.ok, "for CUDA 13, but the driver is of CUDA 12" in found.found) == (False, True)
    assert "uninstall tensorrt tensorrt-cu13 tensorrt-cu13-bindings " in found.fix  # what it saw
    assert look(DRIVER, answers | {"nvidia-smi": Answer(CARD)})["tensorrt"].ok


def test_packages_that_ubuntu_alone_does_not_have(look):
    found = look(DRIVER, {"nvidia-smi": Answer(CARD)})
    for name in ("cuda toolkit", "tensorrt headers"):
        assert found[name].fix.startswith("add NVIDIA's CUDA repository for apt, then sudo apt ")


def test_two_cards_and_one_that_is_too_old(look):
    old = CARD.splitlines()[1].replace("RTX 4090", "GTX 1080").replace("8.9", "6.1")
    found = look(DRIVER, {"nvidia-smi": Answer(f"{CARD}{old}\n")})
    assert found["gpu 0"].ok
    assert "no target is for it" in found["gpu 1"].found
    assert "sm_86, sm_87, sm_89" in found["gpu 1"].fix


def test_full_and_hot_card(look):
    text = CARD.replace("1338 MiB", "24000 MiB").replace(" 38,", " 91,")
    found = look(DRIVER, {"nvidia-smi": Answer(text)})
    assert "too little" in found["gpu memory"].found
    assert "slows down" in found["gpu clocks"].found


@pytest.mark.parametrize(
    ("problem", "fix"),
    [
        ("nvidia-smi is not installed", "sudo ubuntu-drivers install"),
        ("nvidia-smi fails: Failed to initialize NVML: Driver/library version mismatch",
         "sudo reboot: the kernel"),
        ("nvidia-smi fails: NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA "
         "driver.", "sudo reboot; if that"),
    ],
)  # fmt: skip
def test_driver_that_does_not_answer(problem, fix, look):
    pci = "sys/bus/pci/devices/0000:01:00.0"
    files = {f"{pci}/vendor": "0x10de\n", f"{pci}/class": "0x030000\n"}
    found = look(files, {"nvidia-smi": Answer(problem=problem)})["driver"]
    assert found.found == problem
    assert found.fix.startswith(fix)


def test_old_driver(look):
    found = look(DRIVER, {"nvidia-smi": Answer(CARD.replace("580.95.05", "470.182.03"))})
    assert "older than 525" in found["driver"].found


def test_card_that_says_nothing_of_itself(look):
    row = "Card" + ", [N/A]" * 9
    found = look(DRIVER, {"nvidia-smi": Answer(CARD.splitlines()[0] + f"\n{row}\n")})
    assert "does not say" in found["gpu"].found
    assert not found["driver"].ok
