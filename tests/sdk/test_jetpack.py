import re

import pytest

from irstd.jetpack import JETPACKS, jetpack_of, supports_dla


@pytest.mark.parametrize(
    ("l4t", "version"),
    [
        ("35.1", "5.0.2"),
        ("35.4.1", "5.1"),
        ("36.3", "6.0"),
        ("36.4.0", "6.1"),
        ("36.4.3", "6.2"),
        ("36.4.7", "6.2"),
        ("36.5.0", "6.2"),
        ("38.2.1", "7.0"),
        ("38.4", "7.1"),
        ("39.2", "7.2"),
        ("36", None),
        ("36.40", None),
        ("40.1", None),
        ("", None),
        ("garbage", None),
    ],
)
def test_a_release_of_jetson_linux_names_its_jetpack(l4t, version) -> None:
    found = jetpack_of(l4t)
    assert (found and found.version) == version


def test_the_table_is_well_formed() -> None:
    numbers = [tuple(map(int, row.version.split("."))) for row in JETPACKS]
    assert numbers == sorted(numbers, reverse=True)
    for row in JETPACKS:
        for text in (*row.l4t, row.cuda, row.tensorrt, row.python, row.ubuntu):
            assert re.fullmatch(r"\d+(\.\d+)+", text)
        assert set(row.families) <= {"orin", "thor", "xavier"}
    prefixes = [prefix for row in JETPACKS for prefix in row.l4t]
    assert len(prefixes) == len(set(prefixes))


@pytest.mark.parametrize(
    ("tensorrt", "builds"),
    [
        ((8, 6, 2), True),
        ((10, 3, 0), True),
        ((10, 7, 0, 23), True),
        ((10, 8, 0), False),
        ((10, 16, 2), False),
        ((11, 4, 0, 106), False),
        ((11, 4, 1), True),
        ((12, 0), True),
    ],
)
def test_which_tensorrt_builds_for_dla(tensorrt, builds) -> None:
    assert supports_dla(tensorrt) is builds
