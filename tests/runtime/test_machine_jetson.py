"""What a Jetson's tools print, as recorded on boards of four generations, and nonsense."""

import pytest

from irstd.runtime.machine.jetson_clocks import ClockRange, parse_jetson_clocks, read_clocks
from irstd.runtime.machine.nvpmodel import PowerMode, parse_nvpmodel, parse_power_modes
from irstd.runtime.machine.packages import parse_cuda_version, parse_dpkg, parse_l4t_release
from irstd.runtime.machine.tegrastats import parse_tegrastats

# One line each, as printed; the name says the board and the release.
TEGRASTATS = {
    "tx2-r32.2": (
        "RAM 2020/7852MB (lfb 1164x4MB) CPU [9%@345,21%@345,25%@345,3%@345,1%@345,1%@345] "
        "EMC_FREQ 0% GR3D_FREQ 0% PLL@42.5C MCPU@42.5C PMIC@100C Tboard@40C GPU@41C BCPU@42.5C "
        "thermal@41.9C Tdiode@41.25C VDD_SYS_GPU 153/158 VDD_SYS_SOC 536/547 VDD_4V0_WIFI 633/527 "
        "VDD_IN 3140/3208 VDD_SYS_CPU 536/590 VDD_SYS_DDR 557/601\n"
    ),
    "tx2-r32.7-cores-off": (
        "RAM 1689/3825MB (lfb 339x4MB) SWAP 0/1913MB (cached 0MB) "
        "CPU [3%@345,off,off,0%@345,1%@345,1%@345] EMC_FREQ 0% GR3D_FREQ 0% PLL@50.5C MCPU@50.5C "
        "PMIC@50C GPU@50C BCPU@50.5C thermal@50.3C\n"
    ),
    "agx-orin-root": (
        "04-11-2025 10:36:27 RAM 4321/62801MB (lfb 1759x4MB) SWAP 19/31400MB (cached 0MB) "
        "CPU [0%@729,0%@729,0%@729,0%@729] EMC_FREQ 0%@2133 GR3D_FREQ 0%@[0,0] VIC_FREQ 729 "
        "APE 174 CV0@-256C CPU@44.562C Tboard@32C SOC2@40.093C Tdiode@33C SOC0@41.093C CV1@-256C "
        "GPU@-256C tj@44.343C SOC1@41.25C CV2@-256C VDD_GPU_SOC 2340mW/2340mW VDD_CPU_CV "
        "390mW/390mW VIN_SYS_5V0 4025mW/4025mW NC 0mW/0mW VDDQ_VDD2_1V8AO 301mW/301mW "
        "NC 0mW/0mW\n"
    ),
    "orin-nano-r36.4": (
        "06-18-2025 11:25:24 RAM 3452/7620MB (lfb 25x4MB) SWAP 1518/16384MB (cached 174MB) "
        "CPU [1%@1420,2%@1420,0%@1420,2%@1420,2%@729,1%@729] GR3D_FREQ 0% cpu@50.031C "
        "soc2@49.031C soc0@50C gpu@49.031C tj@50.25C soc1@50.25C VDD_IN 4824mW/4824mW "
        "VDD_CPU_GPU_CV 518mW/518mW VDD_SOC 1475mW/1475mW\n"
    ),
    "orin-nano-r39.2": (
        "09-19-2026 13:33:03 RAM 2845/7486MB (lfb 33x4MB) "
        "CPU [1%@729,0%@729,0%@729,0%@729,0%@729,0%@729] EMC_FREQ 3%@665 GR3D_FREQ 0%@[305] "
        "NVDEC0 off NVJPG0 off NVJPG1 off VIC off OFA off APE 200 cpu@45.375C/45.812C "
        "soc2@44.687C/44.843C soc0@46.25C/46.25C gpu@46.562C/46.843C tj@46.562C/46.843C "
        "soc1@46.281C/46.281C VDD_IN 3462mW/3522mW/3582mW VDD_CPU_GPU_CV 442mW/483mW/523mW "
        "VDD_SOC 1127mW/1127mW/1127mW\n"
    ),
    "thor-r38-root": (
        "04-21-2026 15:50:52 RAM 105265/125772MB (lfb 34x4MB) CPU [0%@972,8%@972] EMC_FREQ "
        "0%@2750 GR3D_FREQ @[314,314,314] NVENC0_FREQ @314 NVENC1_FREQ @314 VIC off OFA_FREQ @315 "
        "PVA0_FREQ off APE 300 cpu@37.343C tj@38.875C soc012@37.468C gpu@38.875C soc345@37.406C "
        "VDD_GPU 1962mW/1962mW VDD_CPU_SOC_MSS 5887mW/5887mW VIN_SYS_5V0 5635mW/5635mW "
        "VIN 19780mW/19780mW\n"
    ),
    "thor-r39.2": (
        "07-02-2026 13:45:44 RAM 36529/125749MB (lfb 12x4MB) SWAP 11/4096MB (cached 9MB) "
        "CPU [2%@972,1%@972] cpu@60.406C tj@63.281C soc012@58.468C gpu@62.906C soc345@63.281C "
        "VDD_GPU -392mW/-392mW/0mW VDD_CPU_SOC_MSS 18961mW/18961mW/18961mW VIN_SYS_5V0 "
        "18331mW/18331mW/18331mW VIN 87426mW/43713mW/87426mW\n"
    ),
}


def test_memory_swap_and_blocks():
    stats = {name: parse_tegrastats(line) for name, line in TEGRASTATS.items()}
    nano = stats["orin-nano-r36.4"]
    assert (nano.ram_used_mb, nano.ram_total_mb) == (3452, 7620)
    assert (nano.swap_used_mb, nano.swap_total_mb) == (1518, 16384)
    assert nano.largest_blocks_mb == 100
    assert stats["orin-nano-r39.2"].swap_total_mb is None
    assert stats["thor-r39.2"].ram_total_mb == 125749


def test_load_and_clocks():
    stats = {name: parse_tegrastats(line) for name, line in TEGRASTATS.items()}
    assert stats["tx2-r32.7-cores-off"].core_loads_percent == (3, None, None, 0, 1, 1)
    assert stats["tx2-r32.7-cores-off"].core_clocks_mhz[:2] == (345, None)
    assert stats["orin-nano-r36.4"].gpu_load_percent == 0
    assert stats["orin-nano-r36.4"].gpu_clocks_mhz == ()
    assert stats["orin-nano-r39.2"].gpu_clocks_mhz == (305,)
    assert stats["agx-orin-root"].memory_clock_mhz == 2133
    assert stats["thor-r38-root"].gpu_load_percent is None
    assert stats["thor-r38-root"].gpu_clocks_mhz == (314, 314, 314)
    assert stats["thor-r39.2"].memory_clock_mhz is None


def test_temperatures_without_zones_that_are_off():
    agx = parse_tegrastats(TEGRASTATS["agx-orin-root"])
    assert agx.temperatures_c["tj"] == 44.343
    assert not {"cv0", "gpu"} & set(agx.temperatures_c)
    # The first of two is now, the second the highest so far.
    assert parse_tegrastats(TEGRASTATS["orin-nano-r39.2"]).temperatures_c["cpu"] == 45.375


def test_power_with_and_without_units_and_a_rail_below_zero():
    assert parse_tegrastats(TEGRASTATS["tx2-r32.2"]).power_mw["VDD_IN"] == 3140
    assert parse_tegrastats(TEGRASTATS["orin-nano-r39.2"]).power_mw == {
        "VDD_IN": 3462, "VDD_CPU_GPU_CV": 442, "VDD_SOC": 1127,
    }  # fmt: skip
    thor = parse_tegrastats(TEGRASTATS["thor-r39.2"])
    assert (thor.power_mw["VDD_GPU"], thor.power_mw["VIN"]) == (-392, 87426)


def test_last_whole_line_counts():
    first, second = TEGRASTATS["orin-nano-r36.4"], TEGRASTATS["orin-nano-r39.2"]
    assert parse_tegrastats(first + second).ram_used_mb == 2845
    assert parse_tegrastats(first + second[:40]).ram_used_mb == 3452
    assert parse_tegrastats(first.rstrip("\n")).ram_used_mb == 3452


HOSTILE = [
    "", "\n", "\0" * 1000, "tegrastats: command not found", "RAM /MB", "RAM 1/2",
    "RAM " + "9" * 5000 + "/1MB", "[" * 100_000, "CPU [" + "1%@1," * 50_000 + "]", "\ud800 RAM x",
    "NV Power Mode:", "NV Power Mode: \x1b[2J", "# R (release), REVISION: ",
    "# R" + "3" * 400 + " (release), REVISION: 1.0", "cpu0: Governor= MinFreq=1", "{" * 5000,
    "GPU MinFreq=99999999999999999999 MaxFreq=1 CurrentFreq=1", "< POWER_MODEL ID= NAME= >",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_none_of_it(text):
    assert parse_tegrastats(text) is None
    assert parse_nvpmodel(text) is None
    assert parse_power_modes(text) == ()
    assert parse_jetson_clocks(text) is None
    assert parse_l4t_release(text) is None
    assert parse_dpkg(text) == {}
    assert parse_cuda_version(text) is None


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("NV Power Mode: MAXN_SUPER\n2\n", PowerMode("MAXN_SUPER", 2)),
        ("NV Power Mode: 25W\n1\n", PowerMode("25W", 1)),
        ("NV Power Mode: MODE_30W\n8\n", PowerMode("MODE_30W", 8)),
        ("NVPM WARN: fan mode is not set!\nNV Power Mode: MAXN\n0\n", PowerMode("MAXN", 0)),
        ("NVPM VERB: Current mode: NV Power Mode: MAXN\n0\nNVPM VERB: PARAM", PowerMode("MAXN", 0)),
        ("NV Power Mode: MAXN\n", PowerMode("MAXN", None)),
    ],
)
def test_power_mode(text, wanted):
    assert parse_nvpmodel(text) == wanted
    assert wanted.is_unlimited == wanted.name.startswith("MAXN")


def test_power_modes_of_two_modules():
    nano = (
        "# < POWER_MODEL ID=9 NAME=NONE >\n< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n"
        "GPU MAX_FREQ 612000000\n\n< POWER_MODEL ID=1 NAME=25W >\n"
        "< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n< PM_CONFIG DEFAULT=1 >\n"
    )
    assert parse_power_modes(nano)[-1] == PowerMode("MAXN_SUPER", 2)
    nx = "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=10W >\n"
    assert [mode.number for mode in parse_power_modes(nx) if mode.is_unlimited] == [0]


# Orin Nano, R36.4, as it boots; the same locked by jetson_clocks; AGX Orin on R39.2, locked; 30 W
# mode of AGX Orin with four cores off.
FREE = """\
SOC family:tegra234  Machine:NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super
Online CPUs: 0-5
cpu0:  Online=1 Governor=schedutil MinFreq=729600 MaxFreq=1344000 CurrentFreq=729600 \
IdleStates: WFI=1 c7=1
cpu1:  Online=1 Governor=schedutil MinFreq=729600 MaxFreq=1344000 CurrentFreq=1190400 \
IdleStates: WFI=1 c7=1
GPU MinFreq=306000000 MaxFreq=918000000 CurrentFreq=306000000
Active GPU TPCs: 4
EMC MinFreq=204000000 MaxFreq=3199000000 CurrentFreq=2133000000 FreqOverride=0
FAN Dynamic Speed Control=nvfancontrol hwmon0_pwm1=69
NV Power Mode: 25W
"""
LOCKED = """\
cpu0:  Online=1 Governor=schedutil MinFreq=1728000 MaxFreq=1728000 CurrentFreq=1728000 \
IdleStates: WFI=0 c7=0
GPU MinFreq=1020000000 MaxFreq=1020000000 CurrentFreq=1020000000
EMC MinFreq=204000000 MaxFreq=3199000000 CurrentFreq=3199000000 FreqOverride=1
FAN Dynamic Speed Control=disabled hwmon0_pwm1=255
NV Power Mode: MAXN_SUPER
"""
LOCKED_R39 = """\
SOC family:tegra234  Machine:NVIDIA Jetson AGX Orin Developer Kit
Online CPUs: 0-11, Offline CPUs:\x20
cpu0:  Governor=schedutil MinFreq=2201600 MaxFreq=2201600 CurrentFreq=2201600 IdleStates: WFI=0 c7=0
cpu10: Governor=schedutil MinFreq=2201600 MaxFreq=2201600 CurrentFreq=2201600 IdleStates: WFI=0 c7=0
GPU MinFreq=1300500000 MaxFreq=1300500000 CurrentFreq=1300500000
Active GPU TPCs: 8
EMC MinFreq=3199000000 MaxFreq=3199000000 CurrentFreq=3199000000
DLA0_CORE:   Online=1 MinFreq=0 MaxFreq=1600000000 CurrentFreq=1600000000
PVA0_VPS0: Online=1 MinFreq=0 MaxFreq=1369600000 CurrentFreq=1369600000
NV Power Mode: MAXN
"""
CORES_OFF = """\
Online CPUs: 0-7
cpu7:  Online=1 Governor=schedutil MinFreq=1728000 MaxFreq=1728000 CurrentFreq=1728000 \
IdleStates: WFI=1 c7=1
cpu8:  Online=0 Governor=schedutil MinFreq=729600 MaxFreq=2201600 CurrentFreq=729600 \
IdleStates: WFI=1 c7=1
GPU MinFreq=612000000 MaxFreq=612000000 CurrentFreq=612000000
EMC MinFreq=3199000000 MaxFreq=3199000000 CurrentFreq=3199000000 FreqOverride=1
"""


def test_clocks_as_booted():
    clocks = parse_jetson_clocks(FREE)
    assert clocks.gpu == ClockRange(306.0, 918.0, 306.0)
    assert clocks.cores[1].current_mhz == pytest.approx(1190.4)
    assert clocks.gpu_clusters == 4
    assert (clocks.memory_is_fixed, clocks.are_fixed) == (False, False)


@pytest.mark.parametrize("text", [LOCKED, LOCKED_R39, CORES_OFF])
def test_clocks_that_are_fixed(text):
    assert parse_jetson_clocks(text).are_fixed


def test_one_free_clock_is_enough():
    free = LOCKED_R39.replace("EMC MinFreq=3199000000", "EMC MinFreq=204000000")
    assert parse_jetson_clocks(free).are_fixed is False
    assert (
        parse_jetson_clocks(LOCKED.replace("FreqOverride=1", "FreqOverride=0")).are_fixed is False
    )


@pytest.mark.parametrize("gpu", ["17000000.gpu", "17000000.ga10b", "gpu-gpc-0"])
def test_clocks_that_everybody_may_read(gpu, tmp_path):
    def write(folder, names, values):
        (tmp_path / folder).mkdir(parents=True)
        for name, value in zip(names, values, strict=True):
            (tmp_path / folder / name).write_text(f"{value}\n")

    write(f"sys/class/devfreq/{gpu}", ("min_freq", "max_freq", "cur_freq"), (306000000,) * 3)
    names = ("scaling_min_freq", "scaling_max_freq", "scaling_cur_freq")
    write("sys/devices/system/cpu/cpu0/cpufreq", names, (729600, 1344000, 729600))
    clocks = read_clocks(tmp_path)
    assert clocks.gpu.is_fixed
    assert clocks.are_fixed is False
    (tmp_path / "sys/class/devfreq" / gpu / "cur_freq").write_text("\x1b[2J")
    assert read_clocks(tmp_path) is None


def test_no_clocks(tmp_path):
    assert read_clocks(tmp_path) is None


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("# R32 (release), REVISION: 6.1, GCID: 27863751, BOARD: t186ref", (32, 6, 1)),
        ("# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64, DATE: Tue "
         "Aug  1 19:57:35 UTC 2023", (35, 4, 1)),
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed "
         "Jan  8 01:49:37 UTC 2025", (36, 4, 3)),
        ("# R38 (release), REVISION: 2.2, GCID: 42205042, BOARD: generic, EABI: aarch64, DATE: Thu "
         "Sep 25 22:47:11 UTC 2025\n# KERNEL_VARIANT: oot\n", (38, 2, 2)),
        ("# R39 (release), REVISION: 2.1, GCID: 46758480, BOARD: generic, EABI: aarch64, DATE: Fri "
         "Aug  7 05:54:22 AM UTC 2026", (39, 2, 1)),
    ],
)  # fmt: skip
def test_l4t_release(line, wanted):
    assert parse_l4t_release(line) == wanted


def test_packages_that_are_installed():
    text = (
        "libnvinfer10\t10.3.0.30-1+cuda12.5\tii \nlibnvinfer8\t\tun \n"
        "python3-libnvinfer:arm64\t10.3.0.30-1+cuda12.5\tii \nnvidia-l4t-core\t"
        "36.4.3-20250107174145\thi \nlibnvinfer-headers-dev\t10.3.0.30-1+cuda12.5\trc \n"
    )
    assert parse_dpkg(text) == {
        "libnvinfer10": "10.3.0.30-1+cuda12.5",
        "python3-libnvinfer": "10.3.0.30-1+cuda12.5",
        "nvidia-l4t-core": "36.4.3-20250107174145",
    }


def test_cuda_version():
    text = '{\n   "cuda" : {\n      "name" : "CUDA SDK",\n      "version" : "13.2.2"\n   }\n}'
    assert parse_cuda_version(text) == "13.2.2"
    for text in ("[]", "{}", '{"cuda": 1}', '{"cuda": {"version": "\\u001b[2J"}}', "[" * 100_000):
        assert parse_cuda_version(text) is None


def test_clocks_in_a_sea_of_empty_lines():
    """Each line is looked at once: quadratic time would be minutes."""
    assert parse_jetson_clocks("\n" * 250_000 + "GPU MinFreq=1 MaxFreq=2 CurrentFreq=1\n").gpu
    assert parse_jetson_clocks("\n" * 250_000) is None
