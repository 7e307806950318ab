"""Every rule of an engine in a bundle (docs/bundle-format.md, 58 to 61), violated alone."""

import pytest

import irstd
from irstd.bundle import read_bundle, write_bundle
from irstd.errors import BundleCorrupt


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
