import builtins
import os
import subprocess
import sys

import numpy as np
import pytest

from irstd.errors import BuildError, MissingDependency, UsageError
from irstd.runtime.sessions import (
    SESSIONS,
    installed_sessions,
    library_version,
    open_session,
)
from irstd.runtime.sessions.fake_session import FakeSession

ENGINES = ["onnxruntime", "openvino", "reference"]
LIBRARY_OF = {"onnxruntime": "onnxruntime", "openvino": "openvino", "reference": "onnxruntime"}


@pytest.fixture(params=ENGINES)
def engine(request):
    pytest.importorskip(LIBRARY_OF[request.param])
    return request.param


@pytest.fixture
def image():
    return np.random.default_rng(0).normal(0, 1, (1, 1, 32, 32)).astype(np.float32)


@pytest.mark.parametrize("threads", [None, 1, 2])
def test_an_engine_computes_the_graph(engine, threads, onnx_affine, image):
    session = open_session(engine, onnx_affine, threads=threads)
    assert session.input_shape == (1, 1, 32, 32)
    assert LIBRARY_OF[engine] in session.description
    (logits,) = session.run(image)
    assert logits.shape == (1, 1, 32, 32)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, image * 4 - 4, rtol=1e-6, atol=1e-6)
    session.close()


def test_the_same_array_with_new_content_and_another_array_are_both_seen(
    engine, onnx_affine, image
):
    session = open_session(engine, onnx_affine, threads=1)
    session.run(image)
    image += 1
    np.testing.assert_allclose(session.run(image)[0], image * 4 - 4, rtol=1e-5, atol=1e-5)
    other = image + 1
    np.testing.assert_allclose(session.run(other)[0], other * 4 - 4, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(session.run(image)[0], image * 4 - 4, rtol=1e-5, atol=1e-5)
    session.close()


def test_several_outputs_come_in_the_graphs_order(engine, image):
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    shape = [1, 1, 32, 32]
    graph = helper.make_graph(
        [helper.make_node("Neg", ["image"], ["b"]), helper.make_node("Abs", ["image"], ["a"])],
        "two",
        [helper.make_tensor_value_info("image", kind, shape)],
        [helper.make_tensor_value_info(name, kind, shape) for name in ("a", "b")],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    first, second = open_session(engine, model, threads=1).run(image)
    np.testing.assert_array_equal(first, np.abs(image))
    np.testing.assert_array_equal(second, -image)


def test_closing_twice_is_fine_and_running_afterwards_is_not(engine, onnx_affine, image):
    session = open_session(engine, onnx_affine, threads=1)
    session.close()
    session.close()
    with pytest.raises(BuildError, match="closed"):
        session.run(image)


def test_a_failure_while_running_is_one_of_our_errors(engine, onnx_affine, image):
    session = open_session(engine, onnx_affine, threads=1)
    with pytest.raises(BuildError, match="cannot run the graph") as caught:
        session.run(np.ascontiguousarray(image[..., :8]))
    assert "\n" not in str(caught.value)
    session.close()


@pytest.mark.parametrize("graph", [b"", b"no graph at all", b"\x00" * 100])
def test_bytes_that_are_no_graph_are_refused_in_one_line(engine, graph):
    with pytest.raises(BuildError, match=r"refuses the graph|input") as caught:
        open_session(engine, graph)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "element", "words"),
    [
        ([1, 1, "height", 32], "FLOAT", "static"),
        (["batch", 1, 32, 32], "FLOAT", "static"),
        ([2, 1, 32, 32], "FLOAT", r"\(2, 1, 32, 32\); wanted a static \(1, C, H, W\)"),
        ([1, 32, 32], "FLOAT", "static"),
        ([1, 1, 32, 32], "DOUBLE", "double|f64"),
    ],
)
def test_a_graph_with_another_input_is_refused(engine, shape, element, words):
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    kind = getattr(onnx.TensorProto, element)
    graph = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["logits"])],
        "g",
        [helper.make_tensor_value_info("image", kind, shape)],
        [helper.make_tensor_value_info("logits", kind, shape)],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    with pytest.raises(BuildError, match=words):
        open_session(engine, model)


def test_two_inputs_are_refused(engine):
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    shape = [1, 1, 8, 8]
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["logits"])],
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name in ("a", "b")],
        [helper.make_tensor_value_info("logits", kind, shape)],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    with pytest.raises(BuildError, match="2 inputs; wanted one image"):
        open_session(engine, model)


def test_versions_name_the_library(engine):
    version = library_version(engine)
    assert version.split()[0] == LIBRARY_OF[engine]
    assert version.split()[1][0].isdigit()
    assert library_version("fake") == "fake"


def test_an_unknown_engine_answers_with_the_list():
    with pytest.raises(UsageError, match="unknown engine 'tpu'; one of onnxruntime, openvino"):
        open_session("tpu", b"")
    with pytest.raises(UsageError, match="unknown engine"):
        library_version("tpu")


@pytest.mark.parametrize("threads", [0, -1, 1 << 40, 1.5, "2"])
def test_threads_that_no_machine_has_are_refused(threads):
    with pytest.raises(UsageError, match="from 1 to 1024"):
        open_session("fake", b"", threads=threads)


def test_installed_sessions_are_engines_only(monkeypatch):
    assert set(installed_sessions()) <= set(SESSIONS) - {"fake"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert installed_sessions() == []


@pytest.mark.parametrize("name", ENGINES)
def test_a_missing_library_names_the_command_that_installs_it(monkeypatch, name):
    monkeypatch.setitem(sys.modules, LIBRARY_OF[name], None)
    with pytest.raises(MissingDependency, match=r"pip install 'irstd-sdk\[cpu\]'"):
        open_session(name, b"")


def test_a_broken_installation_is_not_called_missing(monkeypatch):
    real = builtins.__import__

    def broken(name, *args, **kwargs):
        if name == "openvino":
            raise ImportError("libtbb.so.12: cannot open shared object file")
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(MissingDependency, match=r"does not load \(libtbb.so.12"):
        open_session("openvino", b"")


def test_the_fake_engine_is_gain_times_channel_mean_plus_bias():
    graph = b'{"input_shape": [1, 3, 2, 2], "gain": 2, "bias": -1}'
    session = open_session("fake", graph, threads=4)
    x = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
    np.testing.assert_allclose(session.run(x)[0], x.mean(1, keepdims=True) * 2 - 1)


def test_the_fake_engine_reuses_its_output_like_a_real_one():
    session = FakeSession((1, 1, 2, 2))
    first = session.run(np.zeros((1, 1, 2, 2), np.float32))[0]
    assert session.run(np.ones((1, 1, 2, 2), np.float32))[0] is first


@pytest.mark.parametrize(
    "graph",
    [b"", b"[]", b"{}", b'{"input_shape": 3}', b'{"input_shape": [1, 1, 2]}', b"\xff", b"null"],
)
def test_the_fake_engine_refuses_other_graphs(graph):
    with pytest.raises(BuildError):
        open_session("fake", graph)


OPEN_BOTH = """
import sys
from pathlib import Path
from irstd.runtime.sessions import open_session

for name in ("onnxruntime", "openvino"):
    open_session(name, Path(sys.argv[1]).read_bytes()).close()
"""


def test_libraries_report_nothing_to_their_makers(onnx_affine, tmp_path):
    """Both would leave the identity that they report under in the user's folder."""
    for library in ("onnxruntime", "openvino"):
        pytest.importorskip(library)
    home, model = tmp_path / "home", tmp_path / "model.onnx"
    home.mkdir()
    model.write_bytes(onnx_affine)
    # Neither reports from a continuous integration, which these variables tell.
    silent = ("CI", "TF_BUILD", "JENKINS_URL", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    kept = {name: value for name, value in os.environ.items() if name not in silent}
    subprocess.run(
        [sys.executable, "-c", OPEN_BOTH, str(model)], env={**kept, "HOME": str(home)}, check=True
    )
    assert list(home.iterdir()) == []
