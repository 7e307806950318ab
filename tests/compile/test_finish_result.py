"""What `finish` answers: the documented fields, no more and no less."""

import re
from pathlib import Path

import pytest

from irstd.bundle import read_bundle
from irstd.compile.finish_command import describe_finished
from irstd.compile.finish_result import Finished, proven_on
from irstd.engine_record import EngineDevice

PAGE = Path(__file__).resolve().parents[2] / "docs" / "bundle-format.md"
DEVICE = EngineDevice("TensorRT 10.3.0", 12, "Orin", "a board", 87, 8, "L4T 36.4.3")


@pytest.fixture
def found(tmp_path):
    return Finished(tmp_path / "a.irstd", "0" * 64, {"digest": "1" * 32}, DEVICE, "built")


def test_the_fields_are_those_that_are_documented(found):
    table = PAGE.read_text().split("`irstd-compile finish --json` answers")[1].split("\n\n")[1]
    documented = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert list(found.to_dict()) == documented


def test_the_device_is_told_field_by_field(found):
    assert EngineDevice(**found.to_dict()["device"]) == DEVICE


def test_people_are_told_device_and_hash(found):
    lines = describe_finished(found).splitlines()
    assert lines[0].endswith("its engine built here")
    assert "TensorRT 10.3.0, a board (sm_87), driver L4T 36.4.3" in lines[1]
    assert lines[-1] == f"sha256 {'0' * 64}"


def test_a_bundle_that_was_not_finished_was_proven_nowhere(built):
    assert proven_on(read_bundle(built("fp32"))) == {}
