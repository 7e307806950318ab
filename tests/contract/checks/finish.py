"""`irstd-compile finish` from end to end through the double, and every way in which it can fail."""

import importlib.util
import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import irstd
from irstd.bundle import read_bundle, write_bundle
from irstd.compile import finish_engine
from irstd.errors import BundleCorrupt, BundleMismatch, DeviceError
from irstd.runtime.kernels.cuda.images import Image
from irstd.runtime.machine import identity
from irstd.runtime.tensorrt.api import Version
from tests.contract import recorded
from tests.contract.double import MAGIC, Script
from tests.contract.double_runtime import Run
from tests.contract.finish_world import World

_PATH = Path(__file__).resolve().parents[2] / "compile" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("compile_fixtures", _PATH)
_FIXTURES = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_FIXTURES)

compile_command = _FIXTURES.compile_command
make_data = _FIXTURES.make_data
make_tiny = _FIXTURES.make_tiny
tiny_onnx = _FIXTURES.tiny_onnx


@pytest.fixture
def world(trt, monkeypatch):
    """A Jetson Orin Nano with everything in order."""
    made = World(trt, monkeypatch.setattr)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    made.install()
    return made


_BUILT = {}


@pytest.fixture
def portable(compile_command, tiny_onnx, make_data, tmp_path, tmp_path_factory):
    """A function (precision, target) -> a bundle that has still to be finished."""

    def build(precision="fp32", target="jetson-orin-nano"):
        if (precision, target) not in _BUILT:
            kept = tmp_path_factory.mktemp("built") / "tiny.irstd"
            code, _, err = compile_command(
                "build", tiny_onnx(), "--normalize", "80,40", "--target", target,
                "--precision", precision, "--data", make_data(), "-o", kept,
            )  # fmt: skip
            assert code == 0, err
            _BUILT[precision, target] = kept
        path = tmp_path / "tiny.irstd"
        shutil.copy(_BUILT[precision, target], path)
        return path

    return build


@pytest.fixture
def finish(compile_command, world, tmp_path):
    """A function (*arguments) -> exit code, report, standard error."""

    def run(*arguments):
        return compile_command("finish", *arguments, "--cache", tmp_path / "engines-cache")

    return run


def member(path, suffix):
    (name,) = [name for name in read_bundle(path).members if name.endswith(suffix)]
    return name


def changed(path, manifest=None, **members):
    """Write a bundle again with other members; `golden__x` stands for golden/x."""
    bundle = read_bundle(path)
    data = {name: bundle.read(name) for name in bundle.members}
    data |= {name.replace("__", "/").replace("_json", ".json"): new
             for name, new in members.items()}  # fmt: skip
    write_bundle(path, manifest or bundle.manifest, data)


# What it is for.


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_finished_bundle_runs(precision, portable, finish, world):
    path = portable(precision)
    code, report, _ = finish(path)
    assert (code, report["origin"]) == (0, "built")
    assert report["golden"]["passed"]
    assert report["engine"]["key"]["device"]["driver"] == "L4T 36.4.3"
    bundle = read_bundle(path)
    (engine,) = bundle.manifest.engines
    assert (engine.session, engine.chosen, engine.passed) == ("tensorrt", True, True)
    assert engine.median_ms > 0
    frame = np.load(io.BytesIO(bundle.read("golden/frame_000.npy")))
    wanted = np.load(io.BytesIO(bundle.read("golden/deployed_000.npy")))
    with irstd.open_bundle(path) as detector:
        got = detector.logits(frame)
        assert "tensorrt" in detector.engine
    tolerance = json.loads(bundle.read("golden/tolerance.json"))["worst"]
    assert np.abs(got - wanted).max() <= tolerance * max(1.0, float(np.ptp(wanted)))


def test_plan_is_a_plain_file_that_other_tools_load(portable, finish, tmp_path):
    path = portable()
    finish(path)
    plan = member(path, ".plan")
    stored = read_bundle(path).read(plan)
    assert stored.startswith(MAGIC)
    assert (tmp_path / "engines-cache" / plan).read_bytes() == stored


def test_again_is_instant_and_changes_nothing(portable, finish, world):
    path = portable()
    finish(path)
    before = path.read_bytes()
    world.install()
    code, report, _ = finish(path)
    assert (code, report["origin"], world.builds) == (0, "bundle", 0)
    assert path.read_bytes() == before


def test_same_bundle_from_elsewhere_is_found_in_the_cache(portable, finish, world, tmp_path):
    finish(portable(), "-o", tmp_path / "a.irstd")
    world.install()
    code, report, _ = finish(portable(), "-o", tmp_path / "b.irstd")
    assert (code, report["origin"], world.builds) == (0, "cache", 0)
    first, second = (read_bundle(tmp_path / f"{name}.irstd") for name in "ab")
    assert (
        first.members[member(first.path, ".plan")] == second.members[member(second.path, ".plan")]
    )
    assert not read_bundle(tmp_path / "tiny.irstd").manifest.engines


def test_rebuild_builds_whatever_there_is(portable, finish, world):
    path = portable()
    finish(path)
    world.install()
    code, report, _ = finish(path, "--rebuild")
    assert (code, report["origin"], world.builds) == (0, "built", 1)


def test_no_cache_keeps_nothing(portable, compile_command, world, tmp_path, monkeypatch):
    monkeypatch.setenv("IRSTD_CACHE", str(tmp_path / "none"))
    assert compile_command("finish", portable(), "--no-cache")[0] == 0
    assert not (tmp_path / "none" / "engines").exists()


def test_damaged_cache_is_made_again(portable, finish, world, tmp_path):
    finish(portable(), "-o", tmp_path / "a.irstd")
    for file in (tmp_path / "engines-cache" / "engines").iterdir():
        if file.suffix != ".lock":
            file.write_bytes(file.read_bytes()[:-1] + b"?")
    world.install()
    code, report, _ = finish(portable())
    assert (code, report["origin"], world.builds) == (0, "built", 1)


def test_verify_and_inspect_know_a_finished_bundle(portable, finish, compile_command):
    path = portable()
    finish(path)
    code, report, err = compile_command("verify", path)
    assert (code, report["passed"]) == (0, True), err
    code, report, _ = compile_command("inspect", path)
    assert report["manifest"]["engines"][0]["library"].startswith("TensorRT ")


def test_report_says_where_it_was_finished_and_what_the_engine_does(portable, finish):
    path = portable()
    finish(path)
    report = json.loads(read_bundle(path).read("report.json"))
    assert report["finish"]["origin"] == "built"
    assert report["finish"]["layers"]
    assert report["finish"]["build"]["skipped_tactics"] == 0
    assert report["settings"]["target"] == "jetson-orin-nano"


def test_budget_on_data_is_verified_on_the_device(portable, finish, make_data):
    path = portable("fp16")
    data = make_data()
    code, report, err = finish(path, "--data", data, "--budget", "hse=-50,pd=-50,fa=+500")
    assert code == 0, err
    assert report["verdict"]["passed"]
    assert report["verdict"]["accuracy"]["fp32"]["targets"] > 0
    # Data on a bundle that is finished already: nothing is rebuilt, but measured.
    code, report, _ = finish(path, "--data", data)
    assert (code, report["origin"]) == (0, "bundle")
    assert report["verdict"] is not None


def test_violated_budget_writes_nothing(portable, finish, make_data, monkeypatch):
    from irstd.compile import finish as module

    path = portable()
    before = path.read_bytes()
    real = module.score_frames

    def blind(files, read, logits, threshold, progress, what):
        seen = logits if what == "scoring fp32" else lambda frame: np.full_like(logits(frame), -9)
        return real(files, read, seen, threshold, progress, what)

    monkeypatch.setattr(module, "score_frames", blind)
    code, report, _ = finish(path, "--data", make_data(), "--budget", "pd=-1")
    assert (code, report["error"]["type"]) == (4, "BudgetExceeded")
    assert path.read_bytes() == before


def test_budget_needs_labels(portable, finish):
    code, report, _ = finish(portable(), "--budget", "pd=-1")
    assert (code, report["error"]["type"]) == (2, "UsageError")


# A device that is not the one it was built for.


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


# TensorRT and its failures.


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


FAILURES = {
    "parser": (Script(parser_errors=[recorded.PLUGIN_NOT_FOUND]), Run(), 1, "HaarGate_3"),
    "build out of memory": (
        Script(build_log=recorded.NO_IMPLEMENTATION, builds=False), Run(), 1, "memory"),
    "no CUDA": (Script(makes_builder=False, start_log=recorded.NO_CUDA), Run(), 3, "CUDA"),
    "deserializes to nothing": (Script(deserializes=False), Run(), None, "deserialize"),
    "run out of memory": (Script(), Run(makes_context=False), 3, "memory"),
    "does not execute": (Script(), Run(executes=lambda count: False), 3, ""),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_failures_leave_the_bundle_and_say_why(name, portable, finish, world):
    script, run, wanted, said = FAILURES[name]
    path = portable()
    before = path.read_bytes()
    world.install(script, run)
    code, report, err = finish(path)
    assert code == wanted or (wanted is None and code != 0), err
    assert said in report["error"]["message"]
    assert "Traceback" not in err
    assert path.read_bytes() == before
    world.install()
    assert finish(path)[0] == 0


def test_golden_frames_that_disagree(portable, finish, world):
    path = portable()
    whole = path.read_bytes()
    logits = np.load(io.BytesIO(read_bundle(path).read("golden/deployed_000.npy")))
    buffer = io.BytesIO()
    np.save(buffer, logits + np.float32(3))
    bundle = read_bundle(path)
    data = {name: bundle.read(name) for name in bundle.members}
    write_bundle(path, bundle.manifest, data | {"golden/deployed_000.npy": buffer.getvalue()})
    before = path.read_bytes()
    code, report, _ = finish(path)
    assert (code, report["error"]["type"]) == (5, "ParityFailed")
    assert "golden" in report["error"]["message"]
    assert "--rebuild" not in report["error"]["message"]
    assert path.read_bytes() == before
    # The next time the engine comes from the cache, and might be a bad one.
    assert "--rebuild" in finish(path)[1]["error"]["message"]
    path.write_bytes(whole)
    assert finish(path)[0] == 0


# Plugins.


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A plugin library, for a graph that would have fused nodes."""
    library = tmp_path / "haar_gate-tensorrt-10.3.0-abc.so"
    library.write_bytes(b"a library")
    monkeypatch.setattr(finish_engine, "image_for", lambda *facts: Image(b"image", "sm_87"))
    monkeypatch.setattr(finish_engine, "build_plugin", lambda op, image: library)
    monkeypatch.setenv("IRSTD_CACHE", str(tmp_path / "plugins-cache"))
    return library


def with_kernels(path, kernels):
    report = json.loads(read_bundle(path).read("report.json")) | {"kernels": kernels}
    changed(path, report_json=json.dumps(report).encode())
    return path


def test_plugins_travel_in_the_bundle(portable, finish, world, plugin, tmp_path):
    path = with_kernels(portable(), {"gate": "HaarGate"})
    unpacked = tmp_path / "plugins-cache" / "plugins" / f"{sha256(plugin)}.so"
    libraries = (str(plugin), str(unpacked))
    world.install(Script(libraries=libraries))
    assert finish(path)[0] == 0
    assert read_bundle(path).read(f"kernels/haar_gate/{plugin.name}") == b"a library"
    irstd.open_bundle(path).close()
    assert unpacked.read_bytes() == b"a library"
    unpacked.write_bytes(b"half")  # a power cut while it was written
    irstd.open_bundle(path).close()
    assert unpacked.read_bytes() == b"a library"
    world.install(Script(libraries=libraries))
    assert finish(path, "--rebuild")[0] == 0
    assert [name for name in read_bundle(path).members if name.startswith("kernels/")] == [
        f"kernels/haar_gate/{plugin.name}"
    ]


def test_plugin_that_does_not_load(portable, finish, world, plugin):
    path = with_kernels(portable(), {"gate": "HaarGate"})
    code, report, _ = finish(path)
    assert (code, report["error"]["type"]) == (3, "DeviceError")
    assert "haar_gate" in report["error"]["message"]


def test_plugin_that_does_not_load_when_the_bundle_is_opened(portable, finish, world, plugin):
    path = with_kernels(portable(), {"gate": "HaarGate"})
    world.install(Script(libraries=(str(plugin),)))
    assert finish(path)[0] == 0
    with pytest.raises(DeviceError, match="haar_gate does not load"):
        irstd.open_bundle(path)


@pytest.mark.parametrize("kernels", [{"gate": "NoSuchOp"}, {"gate": 7}, {"gate": []}, ["HaarGate"]])
def test_report_that_names_no_operator(kernels, portable, finish, world):
    code, report, _ = finish(with_kernels(portable(), kernels))
    assert (code, report["error"]["type"]) == (1, "BundleCorrupt")


def sha256(path):
    from irstd.files import sha256_of_file

    return sha256_of_file(path)


def test_engine_without_its_record(portable, finish):
    path = portable()
    finish(path)
    bundle = read_bundle(path)
    data = {name: bundle.read(name) for name in bundle.members}
    assert data
    del data[next(name for name in data if name.startswith("engines/") and name.endswith(".json"))]
    write_bundle(path, bundle.manifest, data)
    with pytest.raises(BundleCorrupt, match=r"rule: engine-record"):
        irstd.open_bundle(path)
    assert finish(path)[0] == 1
    assert finish(path, "--rebuild")[0] == 0
