"""Engines and bundles of another device: named, never loaded, built again on request."""

import sys

import pytest

import irstd
from irstd.errors import BundleMismatch
from irstd.runtime.machine import identity
from irstd.runtime.tensorrt.api import Version
from tests.contract.double import Script
from tests.contract.finish_fixtures import member


def _other_library(world, monkeypatch):
    monkeypatch.setattr(identity, "version_of", lambda trt: Version(10, 99))


CHANGES = {
    "driver": lambda world, patch: setattr(world, "driver_version", "L4T 36.4.7"),
    "multiprocessors": lambda world, patch: setattr(world.driver, "multiprocessors", 4),
    "board": lambda world, patch: setattr(world, "board", "NVIDIA Jetson Orin Nano of others"),
    "TensorRT": _other_library,
}


@pytest.mark.parametrize("what", CHANGES)
def test_stale_engine_is_named_never_loaded_and_rebuilt_on_request(
    what, portable, finish, world, monkeypatch
):
    path = portable()
    finish(path)
    old, before = member(path, ".plan"), path.read_bytes()
    CHANGES[what](world, monkeypatch)
    world.install(Script(deserializes=False))  # if it were loaded, this would be the error
    with pytest.raises(BundleMismatch) as raised:
        irstd.open_bundle(path)
    message = str(raised.value)
    assert what in message
    assert "there," in message
    assert "here" in message
    assert f"irstd-compile finish {path} --rebuild" in message
    code, report, _ = finish(path)
    assert (code, report["error"]["type"]) == (6, "BundleMismatch")
    assert path.read_bytes() == before
    world.install()
    code, report, _ = finish(path, "--rebuild")
    assert (code, report["origin"]) == (0, "built")
    assert member(path, ".plan") != old
    irstd.open_bundle(path).close()


def test_bundle_for_another_device(portable, finish, world):
    world.board = "NVIDIA Jetson AGX Orin Developer Kit"
    world.driver.total_bytes = 62801 << 20
    code, report, _ = finish(portable())
    assert (code, report["error"]["type"]) == (6, "BundleMismatch")
    assert "built for jetson-orin-nano" in report["error"]["message"]
    assert "AGX Orin Developer Kit" in report["error"]["message"]
    assert "--target jetson-agx-orin" in report["error"]["message"]


def test_bundle_for_another_architecture(portable, finish, world):
    world.board, world.driver.architecture, world.driver.gpu = None, 89, "NVIDIA GeForce RTX 4090"
    code, report, _ = finish(portable())
    assert code == 6
    assert "--target rtx-40" in report["error"]["message"]


def test_bundle_for_a_board_with_more_memory(portable, finish, world):
    world.driver.total_bytes = 3602 << 20
    code, report, _ = finish(portable())
    assert code == 6
    assert "--target jetson-orin-nano-4gb" in report["error"]["message"]


def test_bundle_that_has_its_engine_already(portable, finish):
    code, report, _ = finish(portable(target="cpu"))
    assert code == 6
    assert "nothing to finish" in report["error"]["message"]


def test_unfinished_bundle_says_how_to_finish_it(portable, world):
    path = portable()
    for engine in ("auto", "tensorrt"):
        with pytest.raises(BundleMismatch, match=f"irstd-compile finish {path}"):
            irstd.open_bundle(path, engine=engine)


def test_no_tensorrt(portable, finish, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    code, report, _ = finish(portable())
    assert (code, report["error"]["type"]) == (3, "MissingDependency")


@pytest.mark.parametrize(
    ("version", "said"), [("8.4.1", "wanted 8.6"), ("10.2.0", "known to be bad")]
)
def test_tensorrt_that_is_too_old_or_known_bad(version, said, portable, finish, world):
    world.double.__version__ = version
    code, report, _ = finish(portable())
    assert (code, report["error"]["type"]) == (3, "MissingDependency")
    assert said in report["error"]["message"]
