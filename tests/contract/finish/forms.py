"""`finish --version-compatible` and `--weight-stripped`: what such engines are, how they run."""

import numpy as np
import pytest

import irstd
from irstd.bundle import read_bundle, write_bundle
from irstd.engine_record import EngineDevice, PlanForm, differences, parse_record
from irstd.errors import BundleMismatch
from irstd.runtime.machine import identity
from irstd.runtime.sessions import open_session
from irstd.runtime.tensorrt.api import Version
from tests.contract.double import Plan, Script
from tests.contract.finish_fixtures import member

STRIPPED, LATER = "--weight-stripped", "--version-compatible"


def record_of(path):
    name = next(n for n in read_bundle(path).members if n.startswith("engines/") and "json" in n)
    return parse_record(read_bundle(path).read(name), name)


def other_tensorrt(monkeypatch, *version):
    monkeypatch.setattr(identity, "version_of", lambda trt: Version(*version))


def test_engine_without_weights_takes_those_of_the_bundle(portable, finish, world):
    path = portable("fp16")
    code, report, err = finish(path, STRIPPED)
    assert code == 0, err
    assert "strip_weights=True" in report["engine"]["key"]["flags"]
    assert record_of(path).key.form is PlanForm.WEIGHT_STRIPPED
    bundle = read_bundle(path)
    plan = Plan.from_bytes(bundle.read(member(path, ".plan")))
    assert plan.model == b""
    assert plan.facts["flags"] == ["REFIT_IDENTICAL", "STRIP_PLAN"]
    frame = np.full((32, 32), 90, np.uint8)
    with irstd.open_bundle(path) as detector:
        stripped = detector.logits(frame)
    assert finish(path)[1]["origin"] == "built"
    with irstd.open_bundle(path) as detector:
        assert np.array_equal(stripped, detector.logits(frame))


def test_bundle_without_weights_in_its_engine_is_the_smaller(portable, finish, tmp_path):
    whole, stripped = tmp_path / "whole.irstd", tmp_path / "stripped.irstd"
    assert finish(portable(), "-o", whole)[0] == 0
    assert finish(portable(), STRIPPED, "-o", stripped)[0] == 0
    assert stripped.stat().st_size < whole.stat().st_size


@pytest.mark.parametrize("form", [STRIPPED, LATER])
def test_each_form_is_an_engine_of_its_own(form, portable, finish, world, tmp_path):
    path = portable()
    assert finish(path)[1]["origin"] == "built"
    assert finish(path, form)[1]["origin"] == "built"
    before = path.read_bytes()
    world.install()
    code, report, _ = finish(path, form)
    assert (code, report["origin"], world.builds) == (0, "bundle", 0)
    assert path.read_bytes() == before
    assert finish(path)[1]["origin"] == "cache"
    assert finish(path, form)[1]["origin"] == "cache"
    assert len([n for n in read_bundle(path).members if n.startswith("engines/")]) == 3
    assert world.builds == 0


def test_data_is_scored_on_the_engine_without_weights(portable, finish, make_data):
    path, data = portable("fp16"), make_data()
    for origin in ("built", "bundle"):
        code, report, err = finish(path, STRIPPED, "--data", data)
        assert (code, report["origin"]) == (0, origin), err
        assert report["verdict"]["accuracy"]["fp32"]["targets"] > 0


@pytest.mark.parametrize(
    ("script", "exit_code", "kind", "said"),
    [
        (Script(refits=False), 3, "DeviceError", "cannot put the weights into the engine"),
        (
            Script(refits=False, lacking_weights=("conv1.weight", "b")),
            6, "BundleMismatch", "the graph lacks 2 of them (conv1.weight, b)",
        ),
    ],
)  # fmt: skip
def test_weights_that_do_not_get_in_are_told_and_nothing_is_written(
    script, exit_code, kind, said, portable, finish, world
):
    path = portable()
    before = path.read_bytes()
    world.install(script)
    code, report, _ = finish(path, STRIPPED)
    assert (code, report["error"]["type"]) == (exit_code, kind)
    assert said in report["error"]["message"]
    assert path.read_bytes() == before
    world.install()
    assert finish(path, STRIPPED)[0] == 0
    world.install(script)
    with pytest.raises(irstd.errors.IrstdError, match="weights"):
        irstd.open_bundle(path)


def test_plan_without_weights_never_runs_alone(portable, finish, world):
    path = portable()
    finish(path, STRIPPED)
    bundle = read_bundle(path)
    plan = bundle.read(member(path, ".plan"))
    with pytest.raises(BundleMismatch, match="may hold no weights: open its bundle"):
        open_session("tensorrt", plan)
    with pytest.raises(BundleMismatch, match="the graph does not give them"):
        open_session("tensorrt", plan, weights=b"another graph")
    open_session("tensorrt", plan, weights=bundle.read(bundle.manifest.model)).close()


def test_graph_that_was_swapped_is_refused_before_it_gives_weights(portable, finish):
    path = portable("fp16")
    finish(path, STRIPPED)
    bundle = read_bundle(path)
    data = {name: bundle.read(name) for name in bundle.members}
    data[bundle.manifest.model] += b"\0"
    write_bundle(path, bundle.manifest, data)
    with pytest.raises(irstd.errors.BundleCorrupt, match="rule: engine-key"):
        irstd.open_bundle(path)


def test_engine_for_later_versions_runs_there(portable, finish, world, monkeypatch):
    path = portable()
    code, report, err = finish(path, LATER)
    assert code == 0, err
    assert "version_compatible=True" in report["engine"]["key"]["flags"]
    assert Plan.from_bytes(read_bundle(path).read(member(path, ".plan"))).facts["flags"] == [
        "VERSION_COMPATIBLE"
    ]
    before = path.read_bytes()
    other_tensorrt(monkeypatch, 10, 99)
    irstd.open_bundle(path).close()
    assert finish(path, LATER)[1]["origin"] == "bundle"
    assert path.read_bytes() == before
    other_tensorrt(monkeypatch, 10, 2, 9)
    with pytest.raises(BundleMismatch, match=r"TensorRT 10\.3\.0 there, TensorRT 10\.2\.9 here"):
        irstd.open_bundle(path)


@pytest.mark.parametrize("what", ["driver_version", "board"])
def test_engine_for_later_versions_stays_on_its_device(what, portable, finish, world, monkeypatch):
    path = portable()
    finish(path, LATER)
    other_tensorrt(monkeypatch, 10, 99)
    monkeypatch.setattr(world, what, getattr(world, what) + " other")
    with pytest.raises(BundleMismatch, match="another machine's") as raised:
        irstd.open_bundle(path)
    assert "10.99" not in str(raised.value)
    assert f"irstd-compile finish {path} --rebuild {LATER} (rule" in str(raised.value)


@pytest.mark.parametrize(
    ("built", "here", "runs"),
    [
        ("TensorRT 10.3.0", "TensorRT 10.13.3.9", True),
        ("TensorRT 10.3.0", "TensorRT 11.4.0.106", True),
        ("TensorRT 10.9.0", "TensorRT 10.10.0", True),
        ("TensorRT 10.10.0", "TensorRT 10.9.0", False),
        ("TensorRT 10.3.0", "tensorrt_rtx 11.0", False),
        ("something 9", "TensorRT 10.3.0", False),
        ("TensorRT 10.3.0", "TensorRT 10.x", False),
    ],
)
def test_which_library_runs_an_engine_for_later_versions(built, here, runs):
    there, now = (EngineDevice(name, 12, "Orin", "", 87, 8, "L4T 36.4.3") for name in (built, here))
    assert (not differences(there, now, PlanForm.VERSION_COMPATIBLE)) == runs
    assert differences(there, now)
    assert differences(there, now, PlanForm.WEIGHT_STRIPPED)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([LATER, STRIPPED], "not allowed with argument"),
        ([STRIPPED, "--builder", "torch_tensorrt"], f"{STRIPPED} goes with --builder tensorrt"),
        ([LATER, "--builder", "tensorrt_rtx"], f"{LATER} goes with --builder tensorrt"),
    ],
)
def test_what_goes_together(flags, said, portable, finish, world):
    code, report, _ = finish(portable(), *flags)
    assert (code, report["error"]["type"]) == (2, "UsageError")
    assert said in report["error"]["message"]


def test_an_engine_for_later_versions_needs_no_plugins(portable, finish, world):
    """They are compiled for one TensorRT."""
    path = portable(network="fused")
    assert finish(path, LATER)[0] == 0
    assert record_of(path).libraries == {}
    irstd.open_bundle(path).close()


def test_tensorrt_8_6_has_no_plans_without_weights(portable, finish, world):
    path = portable()
    before = path.read_bytes()
    world.double.__version__ = "8.6.2"
    flags = world.double.NetworkDefinitionCreationFlag

    class Old:
        EXPLICIT_BATCH = flags.EXPLICIT_BATCH

    world.double.NetworkDefinitionCreationFlag = Old
    code, report, _ = finish(path, STRIPPED)
    assert (code, report["error"]["type"]) == (2, "UsageError")
    assert "8.6.2 keeps weights in its plans" in report["error"]["message"]
    assert path.read_bytes() == before
