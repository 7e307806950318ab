import pytest

from irstd.errors import UsageError
from irstd.targets import TARGETS, find_target

# interface.md; unsuffixed is the larger memory.
WANTED = {
    "cpu": None,
    "jetson-orin-nano": 8,
    "jetson-orin-nano-4gb": 4,
    "jetson-orin-nx": 16,
    "jetson-orin-nx-8gb": 8,
    "jetson-agx-orin": 64,
    "jetson-agx-orin-32gb": 32,
    "jetson-thor": 128,
    "rtx-30": None,
    "rtx-40": None,
    "rtx-50": None,
}


def test_every_promised_target_is_there_with_its_memory() -> None:
    assert {name: target.memory_gb for name, target in TARGETS.items()} == WANTED


@pytest.mark.parametrize("name", WANTED)
def test_a_target_is_found_by_its_name_and_is_consistent(name: str) -> None:
    target = find_target(name)
    assert target.name == name
    assert target.description
    assert target.engines
    is_gpu = target.compute_capability is not None
    assert target.int8_form == ("nvidia" if is_gpu else "cpu")
    assert target.portable is is_gpu  # a GPU engine is built on the device that runs it
    assert (target.board is not None) == name.startswith("jetson")  # a board has a device tree


@pytest.mark.parametrize("name", ["", "CPU", "jetson", "rtx-60", "cpu "])
def test_an_unknown_name_answers_with_the_list(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_target(name)
    assert str(caught.value) == f"unknown target {name!r}; one of {', '.join(WANTED)}"
    assert caught.value.exit_code == 2
