"""Plugin libraries: compiled and loaded on the device, carried in the bundle, loaded again."""

import pytest

import irstd
from irstd.bundle import read_bundle
from irstd.compile import finish_plugins
from irstd.compile.finish import held_engine
from irstd.compile.report import read_report
from irstd.engine_record import PLUGIN_GRAPH
from irstd.errors import BuildError, DeviceError, MissingDependency
from irstd.files import sha256_of_file
from irstd.runtime.kernels.cuda.images import Image
from tests.contract.double import Script
from tests.contract.finish_fixtures import with_plugins
from tests.contract.recorded import PLUGIN_NOT_FOUND

OPERATORS = {
    "haar_gate": "HaarGate",
    "ms_deform_attn": "MSDeformAttn",
    "spectral_split": "SpectralSplit",
}


@pytest.fixture
def libraries(tmp_path, monkeypatch):
    """The compiled plugin of each operator, without a compiler."""
    made = {}
    for op in OPERATORS:
        made[op] = tmp_path / f"{op}-tensorrt-10.3.0-abc.so"
        made[op].write_bytes(f"a library of {op}".encode())
    monkeypatch.setattr(finish_plugins, "image_for", lambda *facts: Image(b"image", "sm_87"))
    monkeypatch.setattr(finish_plugins, "build_plugin", lambda op, image, **_: made[op])
    monkeypatch.setenv("IRSTD_CACHE", str(tmp_path / "plugins-cache"))
    return made


@pytest.fixture
def unpacked(libraries, tmp_path):
    """Where each library is written when the bundle is opened."""
    folder = tmp_path / "plugins-cache" / "plugins"
    return {op: folder / f"{sha256_of_file(path)}.so" for op, path in libraries.items()}


@pytest.fixture
def loads(libraries, unpacked):
    """A TensorRT that loads them, where they were compiled and where they were unpacked."""
    paths = [(op, found[op]) for op in OPERATORS for found in (libraries, unpacked)]
    return Script(libraries={str(path): OPERATORS[op] for op, path in paths})


def graph_of_engine(bundle):
    """The member that the engine was built from."""
    wanted = held_engine(bundle).record.key.graph_sha256
    return [name for name, one in bundle.members.items() if one.sha256 == wanted]


def test_plugins_travel_in_the_bundle(portable, finish, world, libraries, unpacked, loads):
    path = portable(network="fused")
    world.install(loads)
    assert finish(path)[0] == 0
    bundle = read_bundle(path)
    assert graph_of_engine(bundle) == [PLUGIN_GRAPH]
    for op, library in libraries.items():
        assert bundle.read(f"kernels/{op}/{library.name}") == library.read_bytes()
    irstd.open_bundle(path).close()
    assert unpacked["haar_gate"].read_bytes() == b"a library of haar_gate"
    unpacked["haar_gate"].write_bytes(b"half")  # a power cut while it was written
    irstd.open_bundle(path).close()
    assert unpacked["haar_gate"].read_bytes() == b"a library of haar_gate"
    assert finish(path)[1]["origin"] == "bundle"
    assert finish(path, "--rebuild")[0] == 0
    kept = [name for name in read_bundle(path).members if name.startswith("kernels/")]
    assert kept == sorted([
        PLUGIN_GRAPH, *(f"kernels/{op}/{path.name}" for op, path in libraries.items())
    ])  # fmt: skip


@pytest.mark.parametrize("form", ["whole", "stripped"])
def test_the_engine_with_plugins_computes_what_the_golden_frames_say(
    form, portable, finish, world, loads
):
    path = portable(network="fused")
    world.install(loads)
    flags = [] if form == "whole" else ["--weight-stripped"]
    code, report, err = finish(path, *flags)
    assert code == 0, err
    assert report["golden"]["max_abs_error"] < 1e-3
    with irstd.open_bundle(path) as detector:
        assert "tensorrt" in detector.engine.lower()


@pytest.mark.parametrize(
    "error",
    [
        MissingDependency("no NvInferRuntime.h found; wanted TensorRT's headers"),
        BuildError("g++ refuses the kernels"),
        OSError(30, "Read-only file system"),
    ],
)
def test_a_device_that_compiles_no_plugins_runs_standard_operators(
    error, portable, finish, world, libraries, loads, monkeypatch
):
    def refuse(op, image, **_):
        raise error

    monkeypatch.setattr(finish_plugins, "build_plugin", refuse)
    path = portable(network="fused")
    world.install(loads)
    code, _, err = finish(path)
    assert code == 0
    bundle = read_bundle(path)
    assert graph_of_engine(bundle)[-1] == bundle.manifest.model
    assert not [name for name in bundle.members if name.endswith(".so")]
    told = f"fused operators run as standard ones, in more time: {error}; once that is mended, "
    told += "finish with --rebuild"
    assert told in err
    assert told in read_report(bundle)["finish"]["build"]["notes"]
    irstd.open_bundle(path).close()


def test_without_plugins_on_request_and_with_them_again(portable, finish, world, loads):
    path = portable(network="fused")
    world.install(loads)
    assert finish(path)[0] == 0
    assert finish(path, "--no-plugins")[0] == 0
    assert held_engine(read_bundle(path)).record.libraries == {}
    assert finish(path, "--no-plugins")[1]["origin"] == "bundle"
    assert finish(path, "--rebuild")[0] == 0
    assert held_engine(read_bundle(path)).record.libraries.keys() == OPERATORS.keys()


def test_plugin_that_does_not_load(portable, finish, world, libraries):
    code, report, _ = finish(portable(network="fused"))
    assert (code, report["error"]["type"]) == (3, "DeviceError")
    assert "haar_gate" in report["error"]["message"]


def test_plugin_that_does_not_load_when_the_bundle_is_opened(portable, finish, world, libraries):
    path = portable(network="fused")
    world.install(Script(libraries={str(path): OPERATORS[op] for op, path in libraries.items()}))
    assert finish(path)[0] == 0
    with pytest.raises(DeviceError, match="haar_gate does not load"):
        irstd.open_bundle(path)


def test_plugin_graph_that_tensorrt_refuses(portable, finish, world, libraries):
    paths = {str(path): OPERATORS[op] for op, path in libraries.items()}
    world.install(Script(libraries=paths, parser_errors=[PLUGIN_NOT_FOUND]))
    path = portable(network="fused")
    before = path.read_bytes()
    code, report, _ = finish(path)
    assert (code, report["error"]["type"]) == (1, "BuildError")
    assert "with --no-plugins it needs none" in report["error"]["message"]
    assert path.read_bytes() == before


def test_cache_that_cannot_be_written_when_the_bundle_is_opened(
    portable, finish, world, loads, tmp_path, monkeypatch
):
    path = portable(network="fused")
    world.install(loads)
    assert finish(path)[0] == 0
    (tmp_path / "file").touch()
    monkeypatch.setenv("IRSTD_CACHE", str(tmp_path / "file"))
    with pytest.raises(DeviceError, match="set IRSTD_CACHE to a folder that can be written"):
        irstd.open_bundle(path)


@pytest.mark.parametrize(
    "plugins", [{"gate": "NoSuchOp"}, {"gate": 7}, {"gate": []}, ["HaarGate"], {}, None]
)
def test_report_that_names_no_operator(plugins, portable, finish, world):
    code, report, _ = finish(with_plugins(portable(network="fused"), plugins))
    assert (code, report["error"]["type"]) == (1, "BundleCorrupt")
