"""`finish --dla`: a part of the engine on the Deep Learning Accelerator of an AGX Orin."""

import pytest

import irstd
from irstd.bundle import read_bundle
from irstd.compile.finish import held_engine
from irstd.compile.report import read_report
from tests.contract.double import Script


@pytest.fixture
def orin(portable, world):
    """A function (precision) -> a bundle for AGX Orin, on one."""
    world.board = "NVIDIA Jetson AGX Orin Developer Kit"
    world.driver.total_bytes = 62801 << 20
    world.install(Script(dla_cores=2))
    return lambda precision="fp16": portable(precision, "jetson-agx-orin")


def test_the_engine_runs_on_the_core_that_it_was_built_for(orin, finish, world):
    path = orin()
    code, report, err = finish(path, "--dla", 1)
    assert code == 0, err
    assert "dla_core=1" in report["engine"]["key"]["flags"]
    bundle = read_bundle(path)
    assert held_engine(bundle).record.key.dla_core == 1
    layers = read_report(bundle)["finish"]["build"]["dla_layers"]
    assert layers
    assert "resize" not in " ".join(layers).lower()  # which the double's DLA refuses
    irstd.open_bundle(path).close()
    assert finish(path, "--dla", 1)[1]["origin"] == "bundle"


def test_another_core_and_none_are_other_engines(orin, finish, world):
    path = orin()
    digests = set()
    for flags in (["--dla", 0], ["--dla", 1], []):
        code, report, err = finish(path, *flags)
        assert code == 0, err
        assert report["origin"] == "built"
        digests.add(report["engine"]["digest"])
    assert len(digests) == 3
    assert held_engine(read_bundle(path)).record.key.dla_core is None


@pytest.mark.parametrize(
    ("precision", "flags", "said"),
    [
        ("fp16", ["--dla", 2], "no such core; jetson-agx-orin has core 0 or 1"),
        ("fp16", ["--dla", -1], "no such core; jetson-agx-orin has core 0 or 1"),
        ("fp32", ["--dla", 0], "it runs FP16 graphs, this one is FP32"),
        ("fp16", ["--dla", 0, "--builder", "tensorrt_rtx"], "--dla goes with --builder tensorrt"),
        ("fp16", ["--dla", 0, "--weight-stripped"], "--dla goes without --weight-stripped"),
    ],
)
def test_what_there_is_not(precision, flags, said, orin, finish):
    path = orin(precision)
    before = path.read_bytes()
    code, report, _ = finish(path, *flags)
    assert (code, report["error"]["type"]) == (2, "UsageError")
    assert said in report["error"]["message"]
    assert path.read_bytes() == before


def test_a_board_without_one(portable, finish, world):
    code, report, _ = finish(portable("fp16"), "--dla", 0)
    assert (code, report["error"]["type"]) == (2, "UsageError")
    assert "jetson-orin-nano has none" in report["error"]["message"]


def test_a_release_that_does_not_build_for_it(orin, finish, world):
    path = orin()
    world.double.__version__ = "10.13.3"
    code, report, _ = finish(path, "--dla", 0)
    assert (code, report["error"]["type"]) == (2, "UsageError")
    assert "TensorRT 10.13.3 does not build for it; up to 10.7 does" in report["error"]["message"]
