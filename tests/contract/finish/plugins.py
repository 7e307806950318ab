"""Plugin libraries: compiled and loaded on the device, carried in the bundle, loaded again."""

import pytest

import irstd
from irstd.bundle import read_bundle
from irstd.compile import finish_engine
from irstd.errors import DeviceError
from irstd.files import sha256_of_file
from irstd.runtime.kernels.cuda.images import Image
from tests.contract.double import Script
from tests.contract.finish_fixtures import with_kernels


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A plugin library, for a graph that would have fused nodes."""
    library = tmp_path / "haar_gate-tensorrt-10.3.0-abc.so"
    library.write_bytes(b"a library")
    monkeypatch.setattr(finish_engine, "image_for", lambda *facts: Image(b"image", "sm_87"))
    monkeypatch.setattr(finish_engine, "build_plugin", lambda op, image: library)
    monkeypatch.setenv("IRSTD_CACHE", str(tmp_path / "plugins-cache"))
    return library


def test_plugins_travel_in_the_bundle(portable, finish, world, plugin, tmp_path):
    path = with_kernels(portable(), {"gate": "HaarGate"})
    unpacked = tmp_path / "plugins-cache" / "plugins" / f"{sha256_of_file(plugin)}.so"
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
