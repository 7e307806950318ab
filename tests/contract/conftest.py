"""Fixtures of the contract tests; bindings.py says how the bindings come to be here."""

import gc
import os
from types import ModuleType

import pytest

from tests.contract.bindings import BUNDLES_VARIABLE, VERSION_VARIABLE, import_bindings
from tests.contract.finish_fixtures import (  # noqa: F401  for whatever finishes a bundle
    compile_command,
    finish,
    make_data,
    make_tiny,
    portable,
    tiny_onnx,
    world,
)


@pytest.fixture(scope="session", autouse=True)
def _shared_bundles(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A folder for all workers and for all processes that they start (portable)."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "bundles"
    os.environ.setdefault(BUNDLES_VARIABLE, str(folder))


@pytest.fixture(scope="session")
def trt() -> ModuleType:
    """The genuine bindings of the version that this process is for, imported as `tensorrt`.

    For files in `checks/`, which test_each_version.py runs.
    """
    assert VERSION_VARIABLE in os.environ, "run by tests/contract/test_each_version.py"
    module = import_bindings()
    gc.freeze()  # many tests collect garbage, none of which is among what is there by now
    return module


@pytest.fixture(scope="session")
def version(trt: ModuleType) -> tuple[int, ...]:
    """The version of `trt`, such as (10, 13, 3, 9)."""
    return tuple(int(part) for part in trt.__version__.split("."))


@pytest.fixture(scope="session")
def model() -> bytes:
    """A serialized graph of three nodes, (1, 1, 8, 8) float32 to the same."""
    from onnx import TensorProto, helper

    image, mask = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 1, 8, 8))
        for name in ("image", "mask")
    )
    nodes = [
        helper.make_node("Relu", ["image"], ["a"], "first"),
        helper.make_node("Identity", ["a"], ["b"], "second"),
        helper.make_node("Resize", ["b", "", "scales"], ["mask"], "third"),
    ]
    scales = helper.make_tensor("scales", TensorProto.FLOAT, [4], [1.0] * 4)
    graph = helper.make_graph(nodes, "small", [image], [mask], [scales])
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
