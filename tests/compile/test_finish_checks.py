"""Which target a device is: boards by the names that their device trees state, and by memory."""

import dataclasses

import pytest

from irstd.compile.finish_checks import fitting_targets
from irstd.engine_record import EngineDevice
from irstd.targets import TARGETS

MIB = 1 << 20


def fitting(board, memory_mib, architecture=87):
    device = EngineDevice("TensorRT 10.3.0", 12, "Orin", board, architecture, 8, "L4T 36.4.3")
    return fitting_targets(device, memory_mib * MIB)


# Device trees of JetPack 5 to 7; memory as the system shows it.
@pytest.mark.parametrize(
    ("board", "memory_mib", "wanted"),
    [
        ("NVIDIA Jetson Orin Nano Developer Kit", 7620, "jetson-orin-nano"),
        (
            "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
            7486,
            "jetson-orin-nano",
        ),
        ("NVIDIA Jetson Orin Nano Developer Kit", 3602, "jetson-orin-nano-4gb"),
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", 15656, "jetson-orin-nx"),
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", 7620, "jetson-orin-nx-8gb"),
        ("NVIDIA Jetson AGX Orin Developer Kit", 62801, "jetson-agx-orin"),
        ("NVIDIA Jetson AGX Orin Developer Kit", 30697, "jetson-agx-orin-32gb"),
        ("nvidia jetson agx orin of a carrier's maker", 30697, "jetson-agx-orin-32gb"),
    ],
)
def test_a_board_is_the_target_of_its_name_and_memory(board, memory_mib, wanted):
    found = fitting(board, memory_mib)
    assert found[0] == wanted
    assert {TARGETS[name].board for name in found} == {TARGETS[wanted].board}


def test_thor_is_found_by_its_name():
    assert fitting("NVIDIA Jetson AGX Thor Developer Kit", 125772, 110) == ["jetson-thor"]
    assert TARGETS["jetson-thor"].board in "NVIDIA Jetson AGX Thor Developer Kit"


def test_a_board_of_no_known_name_is_whatever_its_memory_suffices_for():
    assert fitting("NVIDIA Jetson", 7620) == [
        "jetson-orin-nano", "jetson-orin-nx-8gb", "jetson-orin-nano-4gb",
    ]  # fmt: skip
    assert "jetson-agx-orin" in fitting("Carrier 3000", 62801)


def test_a_description_is_for_people_only(monkeypatch):
    for name, target in list(TARGETS.items()):
        monkeypatch.setitem(TARGETS, name, dataclasses.replace(target, description="whatever"))
    board = "NVIDIA Jetson Orin NX Engineering Reference Developer Kit"
    assert fitting(board, 15656)[0] == "jetson-orin-nx"


def test_cards_are_told_by_their_compute_capability():
    assert fitting("", 8188, 89) == ["rtx-40"]
    assert fitting("", 8188, 75) == []
