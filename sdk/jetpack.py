"""Which JetPack brings which libraries, as data, and what that means for DLA.

Sources: NVIDIA's JetPack archive pages and release notes of Jetson Linux; for 5.1
NVIDIA/TensorRT#3912; for 6.x the Jetson page of docs.pytorch.org/TensorRT; for 7.0
dusty-nv/jetson-containers#1263; for 7.1 and 7.2 roboflow/inference#1935 and #2531 and
OE4T/meta-tegra#2224; for TensorRT 11.4.1 its migration page "TensorRT 10.x to 11.x on Jetson". That
6.0 holds TensorRT 8.6.2 rests on one weak source.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class JetPack:
    """One release of NVIDIA's software for Jetson boards.

    Attributes:
        version: As NVIDIA calls it.
        l4t: First numbers of the Jetson Linux releases that it holds, as /etc/nv_tegra_release
            gives them: "36.4" stands for 36.4.0, 36.4.3, ...
        cuda: Version of the toolkit.
        tensorrt: Version that it installs.
        python: Of the system, which the TensorRT bindings are for.
        ubuntu: Release of the root file system.
        families: Boards that it runs on: "orin", "thor", "xavier".
        note: What to know besides, one line.
    """

    version: str
    l4t: tuple[str, ...]
    cuda: str
    tensorrt: str
    python: str
    ubuntu: str
    families: tuple[str, ...]
    note: str = ""


_NO_INSTALL = "TensorRT 11.0 to 11.4.0 do not support JetPack"

# The newest first.
JETPACKS: tuple[JetPack, ...] = (
    JetPack("7.2", ("39.2",), "13.2", "10.16.2", "3.12", "24.04", ("orin", "thor"), _NO_INSTALL),
    JetPack("7.1", ("38.4",), "13.0", "10.13", "3.12", "24.04", ("thor",)),
    JetPack("7.0", ("38.2",), "13.0", "10.13", "3.12", "24.04", ("thor",)),
    JetPack("6.2", ("36.4", "36.5"), "12.6", "10.3", "3.10", "22.04", ("orin",),
            "brings the Super power modes; never gets TensorRT 11"),
    JetPack("6.1", ("36.4.0",), "12.6", "10.3", "3.10", "22.04", ("orin",),
            "never gets TensorRT 11"),
    JetPack("6.0", ("36.3",), "12.2", "8.6.2", "3.10", "22.04", ("orin",),
            "TensorRT 8.6 is supported as far as it goes: upgrade to 6.2"),
    JetPack("5.1", ("35.2", "35.3", "35.4", "35.5", "35.6"), "11.4", "8.5.2", "3.8", "20.04",
            ("orin", "xavier"), "Python 3.8 is older than this SDK runs on: upgrade to 6.2"),
    JetPack("5.0.2", ("35.1",), "11.4", "8.4.1", "3.8", "20.04", ("orin", "xavier"),
            "Python 3.8 is older than this SDK runs on: upgrade to 6.2"),
)  # fmt: skip


def jetpack_of(l4t: str) -> JetPack | None:
    """Return the JetPack that holds a Jetson Linux release, None for one not known here.

    Args:
        l4t: Such as "36.4.3"; of several rows that fit, the one with most numbers in common counts.
    """
    best: tuple[int, JetPack] | None = None
    for jetpack in JETPACKS:
        for prefix in jetpack.l4t:
            length = len(prefix.split("."))
            fits = l4t.split(".")[:length] == prefix.split(".")
            if fits and (best is None or length > best[0]):
                best = length, jetpack
    return best[1] if best else None


# First and last TensorRT that builds for DLA on a Jetson; None: no end known. NVIDIA, "Working with
# DLA", TensorRT 11.3: 10.7 was the last release that supported DLA; TensorRT 11.4.1 brings it back
# for AGX Orin under JetPack 7.2.2 and later.
_DLA_RANGES = (((8, 0), (10, 8)), ((11, 4, 1), None))
DLA_TAKES_QDQ = (11, 4, 1)  # the same page; before, layers between Q and DQ stay on the GPU
DLA_AGAIN_ON = "AGX Orin under JetPack 7.2.2 or later"


def supports_dla(tensorrt: tuple[int, ...]) -> bool:
    """Whether a TensorRT release can build for the DLA of a Jetson Orin.

    Args:
        tensorrt: Its version as numbers, such as (10, 3, 0). From 11.4.1 on AGX Orin alone.
    """
    return any(first <= tensorrt and (end is None or tensorrt < end) for first, end in _DLA_RANGES)
