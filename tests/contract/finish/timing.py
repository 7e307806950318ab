"""What `finish` measured before on this device is not measured again; what others measured is."""

import dataclasses
import json
import os

import pytest

from irstd.bundle import read_bundle
from irstd.compile.engine_store import StoredEngine, find_timing, keep_engine
from irstd.engine_record import EngineDevice, EngineKey, EngineRecord, parse_record
from irstd.files import sha256_hex
from tests.contract.finish_fixtures import member

DEVICE = EngineDevice("TensorRT 10.3.0", 12, "Orin", "", 87, 8, "L4T 36.4.3")


def builds_in(path):
    """How many builds the timing cache of a bundle's engine has seen."""
    return read_bundle(path).read(member(path, ".timing")).count(b" built")


def build_notes(path):
    return json.loads(read_bundle(path).read("report.json"))["finish"]["build"]["notes"]


@pytest.fixture
def engines(tmp_path):
    return tmp_path / "engines-cache" / "engines"


def test_another_graph_begins_with_what_the_cache_holds(portable, finish, tmp_path):
    other = tmp_path / "other.irstd"
    finish(portable("fp32"), "-o", other)
    path = portable("fp16")
    assert finish(path)[1]["origin"] == "built"
    assert (builds_in(other), builds_in(path)) == (1, 2)
    assert build_notes(path) == []


def test_another_form_begins_with_what_the_bundle_holds(portable, compile_command, world):
    path = portable()
    for flags, builds in (([], 1), (["--weight-stripped"], 2), (["--rebuild"], 1)):
        assert compile_command("finish", path, "--no-cache", *flags)[0] == 0
        assert builds_in(path) == builds


def test_rebuild_measures_anew(portable, finish):
    path = portable()
    finish(path)
    assert finish(path, "--rebuild")[1]["origin"] == "built"
    assert builds_in(path) == 1


def test_what_another_device_measured_is_not_used(portable, finish, world, tmp_path):
    finish(portable("fp32"), "-o", tmp_path / "other.irstd")
    world.driver.multiprocessors = 4
    path = portable("fp16")
    assert finish(path)[0] == 0
    assert builds_in(path) == 1


@pytest.mark.parametrize("damaged", [".timing", ".json"])
def test_what_is_damaged_in_the_cache_is_not_used(damaged, portable, finish, engines, tmp_path):
    finish(portable("fp32"), "-o", tmp_path / "other.irstd")
    (file,) = engines.glob(f"*{damaged}")
    file.write_bytes(file.read_bytes()[:-2])
    path = portable("fp16")
    assert finish(path)[0] == 0
    assert builds_in(path) == 1


def test_power_cut_before_the_record_leaves_nothing_to_begin_with(
    portable, finish, engines, tmp_path
):
    finish(portable("fp32"), "-o", tmp_path / "other.irstd")
    (record,) = engines.glob("*.json")
    record.unlink()
    path = portable("fp16")
    assert finish(path)[0] == 0
    assert builds_in(path) == 1


def test_what_tensorrt_does_not_take_is_a_note_and_no_error(portable, finish, engines, tmp_path):
    finish(portable("fp32"), "-o", tmp_path / "other.irstd")
    ((timing,), (file,)) = engines.glob("*.timing"), engines.glob("*.json")
    timing.write_bytes(b"of another TensorRT")
    record = parse_record(file.read_bytes(), "record")
    record = dataclasses.replace(record, timing_sha256=sha256_hex(timing.read_bytes()))
    file.write_bytes(record.to_json())
    path = portable("fp16")
    assert finish(path)[0] == 0
    assert builds_in(path) == 1
    assert build_notes(path) == [
        "the timing cache is of another TensorRT or another GPU, or damaged: measured anew"
    ]


def stored(graph, timing, device=DEVICE):
    key = EngineKey(sha256_hex(graph), "fp32", device, (), {})
    record = EngineRecord(key, sha256_hex(b"plan"), sha256_hex(timing), {}, "1")
    return StoredEngine(record, b"plan", timing)


def test_the_last_one_of_the_same_device_counts(tmp_path):
    assert find_timing(None, DEVICE) == b""
    assert find_timing(tmp_path, DEVICE) == b""
    newer = dataclasses.replace(DEVICE, driver="L4T 36.4.7")
    kept = [stored(b"a", b"first"), stored(b"b", b"second"), stored(b"c", b""),
            stored(b"d", b"of another driver", newer)]  # fmt: skip
    for at, engine in enumerate(kept):
        keep_engine(tmp_path, engine)
        os.utime(tmp_path / "engines" / f"{engine.record.key.digest}.json", (at, at))
    assert find_timing(tmp_path, DEVICE) == b"second"
    assert find_timing(tmp_path, newer) == b"of another driver"
