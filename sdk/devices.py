"""What the boards and cards can do at most, as published: the figures that estimates rest on.

Peaks are dense. Vendors quote sparse ones, and add the GPU and the DLA cores; `quoted` says what
was quoted and how it counts, and a test computes it again from SMs, clocks and operations a clock.

Sources, by the keys that devices name:

    orin-brief    NVIDIA Jetson AGX Orin Series Technical Brief v1.2: SMs, clocks, 5.3 TFLOPS of
                  FP32 and 170 sparse INT8 TOPS of the 64 GB GPU, 4 MB L2, 105 TOPS of two DLAs
    orin-sheets   NVIDIA Jetson Orin Nano, Orin NX and AGX Orin Series data sheets: memory, clocks,
                  TOPS; "Super" figures: NVIDIA, "JetPack 6.2 Brings Super Mode", January 2025
    nvpmodel      nvpmodel_p3701_0000/0004.conf and nvpmodel_p3767_0000/1/3/4[_super].conf of Jetson
                  Linux 36: clocks, powered TPCs (2 SMs each) and DLA clocks of each power mode; one
                  of two halves of the L2 (FBP) is off on Orin Nano and NX
    dla-sw        github.com/NVIDIA/Deep-Learning-Accelerator-SW, README.md: DLA TOPS by power mode
    thor-sheet    NVIDIA Jetson Thor data sheet (T5000): 2560 CUDA cores, 1.57 GHz, 273 GB/s, 2070
                  TFLOPS of sparse FP4, of which INT8 and FP8 do half and FP16 a quarter; the L2 is
                  what cudaGetDeviceProperties reports on it (forums.developer.nvidia.com/t/356355)
    ga102         NVIDIA Ampere GA102 GPU Architecture whitepaper v2.1: operations per SM and clock
                  (RTX 3080: 29.8 TFLOPS FP32, 119 FP16, 238 INT8 TOPS, dense, 68 SMs, 1710 MHz)
    rtx3060       NVIDIA GeForce RTX 3060 product page and announcement of January 2021
    ada           NVIDIA Ada GPU Architecture whitepaper v2.1 (RTX 4090: 82.6 TFLOPS FP32, 330.3
                  FP16, 660.6 INT8 TOPS, dense, 128 SMs, 2520 MHz); RTX 4060 product page
    blackwell     NVIDIA RTX Blackwell GPU Architecture whitepaper v1.1 (RTX 5070)
"""

import dataclasses

from irstd.errors import UsageError

# Dense INT8 operations per clock of one second-generation DLA core: 105 sparse TOPS of two at 1.6
# GHz (orin-brief). Its FP16 peak is not published.
DLA_INT8_PER_CLOCK = 16_384


@dataclasses.dataclass(frozen=True)
class Rates:
    """Dense operations (a multiply-add is two) that one SM does in one clock.

    Attributes:
        fp32: On CUDA cores.
        tf32: On tensor cores, which may compute what a graph calls float32.
        fp16: On tensor cores, sums in FP16 where that is faster.
        int8: On tensor cores.
    """

    fp32: int
    tf32: int
    fp16: int
    int8: int


# The SMs of Orin have the tensor cores of GA100, twice as wide as those of GA102. NVIDIA gives no
# TF32 figure for Orin and Thor; on GA100 it is half of FP16, which is taken as the most it can be.
_ORIN = Rates(fp32=256, tf32=1024, fp16=2048, int8=4096)
_THOR = Rates(fp32=256, tf32=4096, fp16=8192, int8=16_384)
_GEFORCE = Rates(fp32=256, tf32=256, fp16=1024, int8=2048)


@dataclasses.dataclass(frozen=True)
class PowerMode:
    """Clocks that a board is set to.

    Attributes:
        name: As `nvpmodel` calls it; "boost" for a card.
        sms: Streaming multiprocessors that are powered.
        gpu_mhz: Highest GPU clock.
        bandwidth_gb_s: Of the memory, 10^9 bytes a second.
        dla_mhz: Highest clock of each DLA core.
        is_default: Whether the board starts in it as delivered.
        needs: What must be installed first, empty for nothing.
    """

    name: str
    sms: int
    gpu_mhz: float
    bandwidth_gb_s: float
    dla_mhz: tuple[float, ...] = ()
    is_default: bool = False
    needs: str = ""


@dataclasses.dataclass(frozen=True)
class Quote:
    """The vendor's headline figure for one power mode.

    Attributes:
        mode: Name of the power mode.
        tops: 10^12 operations a second, as quoted.
        times_int8: How many dense INT8 operations of the GPU it counts for one: 2 for sparse INT8.
        counts_dla: Whether the sparse INT8 operations of the DLA cores are in it.
    """

    mode: str
    tops: float
    times_int8: float
    counts_dla: bool = False


@dataclasses.dataclass(frozen=True)
class Device:
    """One board, or the card that stands for a series.

    Attributes:
        product: What one buys.
        memory_gb: Of the device; on a Jetson CPU and GPU share it.
        l2_bytes: Of the GPU's level-2 cache.
        rates: What an SM does in a clock.
        power_modes: The fastest first.
        quoted: What the vendor quotes.
        sources: Keys of this module's docstring.
    """

    product: str
    memory_gb: int
    l2_bytes: int
    rates: Rates
    power_modes: tuple[PowerMode, ...]
    quoted: tuple[Quote, ...]
    sources: tuple[str, ...]

    @property
    def dla_cores(self) -> int:
        """Deep learning accelerators beside the GPU."""
        return len(self.power_modes[0].dla_mhz)

    def mode(self, name: str | None = None) -> PowerMode:
        """Return a power mode by name; None for the fastest.

        Raises:
            UsageError: There is none of that name; the message lists them.
        """
        if name is None:
            return self.power_modes[0]
        for mode in self.power_modes:
            if mode.name == name:
                return mode
        known = ", ".join(mode.name for mode in self.power_modes)
        raise UsageError(f"{self.product} has no power mode {name!r}; one of {known}")

    def peak_tops(self, precision: str, mode: PowerMode) -> float:
        """Return the GPU's dense peak, 10^12 operations a second.

        Args:
            precision: A field of Rates.
            mode: One of `power_modes`.
        """
        rate: int = getattr(self.rates, precision)
        return mode.sms * mode.gpu_mhz * 1e6 * rate / 1e12

    def dla_int8_tops(self, mode: PowerMode) -> float:
        """Return the dense INT8 peak of all DLA cores, 10^12 operations a second."""
        return sum(mode.dla_mhz) * 1e6 * DLA_INT8_PER_CLOCK / 1e12


_SUPER = "JetPack 6.2 or later, flashed with the -super board configuration"
_JETSON_SOURCES = ("orin-brief", "orin-sheets", "nvpmodel")
_MIB = 1 << 20

ORIN_NANO_8GB = Device(
    "Jetson Orin Nano 8 GB",
    8,
    2 * _MIB,
    _ORIN,
    (
        PowerMode("MAXN_SUPER", 8, 1020, 102.4, needs=_SUPER),
        PowerMode("25W", 8, 918, 102.4, needs=_SUPER),
        PowerMode("15W", 8, 625, 68.3, is_default=True),
        PowerMode("7W", 4, 408, 68.3),
    ),
    (Quote("15W", 40, 2), Quote("MAXN_SUPER", 67, 2)),
    _JETSON_SOURCES,
)
ORIN_NANO_4GB = Device(
    "Jetson Orin Nano 4 GB",
    4,
    2 * _MIB,
    _ORIN,
    (
        PowerMode("MAXN_SUPER", 4, 1020, 51.2, needs=_SUPER),
        PowerMode("25W", 4, 1020, 51.2, needs=_SUPER),
        PowerMode("10W", 4, 625, 34.1, is_default=True),
        PowerMode("7W_AI", 4, 408, 34.1),
    ),
    (Quote("10W", 20, 2), Quote("MAXN_SUPER", 34, 2)),
    _JETSON_SOURCES,
)
ORIN_NX_16GB = Device(
    "Jetson Orin NX 16 GB",
    16,
    2 * _MIB,
    _ORIN,
    (
        PowerMode("MAXN_SUPER", 8, 1173, 102.4, (1228.8, 1228.8), needs=_SUPER),
        PowerMode("40W", 8, 1173, 102.4, (908.8, 908.8), needs=_SUPER),
        PowerMode("MAXN", 8, 918, 102.4, (614.4, 614.4)),
        PowerMode("25W", 8, 408, 102.4, (614.4, 614.4)),
        PowerMode("15W", 4, 612, 102.4, (614.4, 614.4), is_default=True),
        PowerMode("10W", 4, 612, 68.3, (153.6, 115.0)),
    ),
    (Quote("MAXN", 100, 2, counts_dla=True), Quote("MAXN_SUPER", 157, 2, counts_dla=True)),
    _JETSON_SOURCES,
)
ORIN_NX_8GB = Device(
    "Jetson Orin NX 8 GB",
    8,
    2 * _MIB,
    _ORIN,
    (
        PowerMode("MAXN_SUPER", 8, 1173, 102.4, (1228.8,), needs=_SUPER),
        PowerMode("40W", 8, 1173, 102.4, (1203.2,), needs=_SUPER),
        PowerMode("MAXN", 8, 765, 102.4, (614.4,)),
        PowerMode("20W", 8, 408, 102.4, (614.4,)),
        PowerMode("15W", 4, 612, 102.4, (614.4,), is_default=True),
        PowerMode("10W", 4, 612, 68.3, (153.6,)),
    ),
    (Quote("MAXN", 70, 2, counts_dla=True), Quote("MAXN_SUPER", 117, 2, counts_dla=True)),
    _JETSON_SOURCES,
)
AGX_ORIN_64GB = Device(
    "Jetson AGX Orin 64 GB",
    64,
    4 * _MIB,
    _ORIN,
    (
        PowerMode("MAXN", 16, 1301, 204.8, (1600.0, 1600.0)),
        PowerMode("MODE_50W", 16, 816, 204.8, (1369.6, 1369.6)),
        PowerMode("MODE_30W", 8, 612, 204.8, (1369.6, 1369.6), is_default=True),
        PowerMode("MODE_15W", 6, 408, 136.5, (614.4, 614.4)),
    ),
    (Quote("MAXN", 275, 2, counts_dla=True),),
    (*_JETSON_SOURCES, "dla-sw"),
)
AGX_ORIN_32GB = Device(
    "Jetson AGX Orin 32 GB",
    32,
    4 * _MIB,
    _ORIN,
    (
        PowerMode("MAXN", 14, 930, 204.8, (1408.0, 1408.0)),
        PowerMode("MODE_40W", 14, 816, 204.8, (1228.8, 1228.8)),
        PowerMode("MODE_30W", 8, 612, 204.8, (1369.6, 1369.6), is_default=True),
        PowerMode("MODE_15W", 6, 408, 136.5, (614.4, 614.4)),
    ),
    (Quote("MAXN", 200, 2, counts_dla=True),),
    _JETSON_SOURCES,
)
# Its other modes (120W, 90W, 70W) are left out: their clocks are not published.
THOR_T5000 = Device(
    "Jetson Thor T5000",
    128,
    32 * _MIB,
    _THOR,
    (PowerMode("MAXN", 20, 1575, 273.0),),
    (Quote("MAXN", 2070, 4),),
    ("thor-sheet",),
)
# One of the smaller cards of each series: what it does, the larger ones do.
RTX_3060 = Device(
    "GeForce RTX 3060 12 GB",
    12,
    3 * _MIB,
    _GEFORCE,
    (PowerMode("boost", 28, 1777, 360.0, is_default=True),),
    (Quote("boost", 101, 1),),  # sparse FP16
    ("ga102", "rtx3060"),
)
RTX_4060 = Device(
    "GeForce RTX 4060 8 GB",
    8,
    24 * _MIB,
    _GEFORCE,
    (PowerMode("boost", 24, 2460, 272.0, is_default=True),),
    (Quote("boost", 242, 2),),
    ("ada",),
)
RTX_5070 = Device(
    "GeForce RTX 5070 12 GB",
    12,
    48 * _MIB,
    _GEFORCE,
    (PowerMode("boost", 48, 2512, 672.0, is_default=True),),
    (Quote("boost", 988, 4),),  # sparse FP4
    ("blackwell",),
)
