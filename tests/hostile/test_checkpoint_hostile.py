"""Weights files that are damaged or mean harm: one clear line each, and nothing is executed."""

import contextlib
import json
import os
import pickle
import struct
import subprocess

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from irstd.compile.checkpoint import (
    LAYOUT,
    PICKLE_SUFFIXES,
    NetworkOptions,
    load_checkpoint,
    save_checkpoint,
)
from irstd.compile.networks import NETWORKS
from irstd.errors import CheckpointError

OPTIONS = {"in_channels": 1, "norm": "batch", "input_norm_eps": 1e-5}


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, call, *arguments):
        self.reduced = (call, arguments)

    def __reduce__(self):
        return self.reduced


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return NETWORKS["acm"].build(**OPTIONS).state_dict()


def refused(path, network="acm"):
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(network, path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert "weights_only" not in message, "never advise to switch the protection off"
    return message


def test_a_missing_file(tmp_path):
    assert "no such file" in refused(tmp_path / "none.pth")
    assert "no such file" in refused(tmp_path)


@pytest.mark.parametrize("suffix", PICKLE_SUFFIXES)
@pytest.mark.parametrize("call", [os.system, subprocess.call, eval, exec])
def test_a_pickle_that_executes_code_is_refused_and_does_not_run(call, suffix, state, tmp_path):
    witness = tmp_path / "witness"
    argument = {
        os.system: f"touch {witness}",
        subprocess.call: ["touch", str(witness)],
    }.get(call, f"open({str(witness)!r}, 'w')")
    payload = Payload(call, argument)
    for name, content in {
        "beside": {"state_dict": state, "extra": payload},
        "inside": {"state_dict": dict(state) | {"stem.0.weight": payload}},
        "alone": payload,
    }.items():
        path = tmp_path / f"{name}{suffix}"
        torch.save(content, path)
        assert "could run code" in refused(path)
        for protocol in range(6):
            path.write_bytes(pickle.dumps(content, protocol))
            refused(path)
    assert not witness.exists()


def test_the_payload_of_these_tests_works(tmp_path):
    witness = tmp_path / "witness"
    pickle.loads(pickle.dumps(Payload(os.system, f"touch {witness}")))
    assert witness.exists()


def test_a_pickled_module_is_refused(tmp_path):
    path = tmp_path / "module.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    assert "state_dict" in refused(path)


@pytest.mark.parametrize(
    "content",
    [{}, [], 3, "text", {"state_dict": {}}, {"a": 1}, {"epoch": 3, "state_dict": [1]}, None],
)
def test_no_state_dict(content, tmp_path):
    path = tmp_path / "x.pth"
    torch.save(content, path)
    assert "state_dict" in refused(path)


@pytest.mark.parametrize("suffix", [".onnx", ".h5", "", ".irstd"])
def test_other_suffixes_are_refused_unread(suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(b"\x80")
    assert ".safetensors" in refused(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_truncated_torch_files(share, zipped, state, tmp_path):
    path = tmp_path / "x.pth"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused(path)


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.5, 0.999])
def test_truncated_safetensors(share, state, tmp_path):
    path = tmp_path / "x.safetensors"
    save_file(dict(state), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert "safetensors" in refused(path)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200), suffix=st.sampled_from([".pth", ".safetensors"]))
def test_random_bytes(data, suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(data)
    refused(path)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_read_or_refused(position, bit, state, tmp_path):
    """Weights without a hash cannot tell every flip; none may raise anything undocumented."""
    path = tmp_path / "x.pth"
    torch.save(state, path)
    data = bytearray(path.read_bytes())
    data[int(position * len(data))] ^= 1 << bit
    path.write_bytes(data)
    with contextlib.suppress(CheckpointError):
        load_checkpoint("acm", path)


def write_header(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


ENTRY = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}


@pytest.mark.parametrize(
    ("header", "data", "length"),
    [
        (b"{", b"", 1 << 40),
        (b"", b"", None),
        (b"[" * 5000, b"", None),
        (b"\xff\xfe", b"", None),
        ({"x": ENTRY}, b"0" * 8, None),
        ({"x": ENTRY}, b"0" * 24, None),
        ({"x": ENTRY | {"shape": [1 << 62, 4]}}, b"0" * 16, None),
        ({"x": ENTRY | {"shape": [-4]}}, b"0" * 16, None),
        ({"x": ENTRY | {"data_offsets": [16, 0]}}, b"0" * 16, None),
        ({"x": ENTRY | {"data_offsets": [0, 1 << 60]}}, b"0" * 16, None),
        ({"x": ENTRY, "y": ENTRY}, b"0" * 16, None),
        ({"x": ENTRY | {"dtype": "Q9"}}, b"0" * 16, None),
        ({"x": ENTRY, "__metadata__": {"layout": 3}}, b"0" * 16, None),
        ({"x": ENTRY, "__metadata__": []}, b"0" * 16, None),
    ],
)
def test_safetensors_headers_that_lie(header, data, length, tmp_path):
    path = tmp_path / "x.safetensors"
    write_header(path, header, data, length)
    assert "not a sound safetensors file" in refused(path)


@pytest.mark.parametrize("tensors", [{}, {"x": torch.zeros(4)}])
def test_sound_files_of_nothing_known(tensors, tmp_path):
    path = tmp_path / "x.safetensors"
    save_file(tensors, path)
    assert "does not fit acm" in refused(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(value, state, tmp_path):
    path = tmp_path / "x.pth"
    bias = state["head.block.4.bias"].clone().fill_(value)
    torch.save(dict(state) | {"head.block.4.bias": bias}, path)
    assert "head.block.4.bias" in refused(path)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1, dtype=torch.int64),
        torch.zeros(1, dtype=torch.bool),
        torch.zeros(1, dtype=torch.complex64),
        torch.zeros(1).to_sparse(),
        torch.zeros(1).to(torch.float8_e4m3fn),
        torch.zeros(1, device="meta"),
    ],
    ids=lambda tensor: str(tensor.dtype) + str(tensor.layout) + str(tensor.device),
)
def test_weights_that_are_no_plain_floats(tensor, state, tmp_path):
    path = tmp_path / "x.pth"
    torch.save(dict(state) | {"head.block.4.bias": tensor}, path)
    refused(path)


METADATA = {
    "layout": LAYOUT,
    "network": "acm",
    "options": json.dumps(OPTIONS),
    "normalize": "[95.0, 41.5]",
}


@pytest.mark.parametrize(
    "change",
    [
        {"layout": "irstd-2"},
        {"layout": ""},
        {"network": "unet"},
        {"network": None},
        {"options": None},
        {"options": "{"},
        {"options": "[]"},
        {"options": "[" * 100_000},
        {"options": "{}"},
        {"options": json.dumps(OPTIONS | {"in_channels": 10**9})},
        {"options": json.dumps(OPTIONS | {"in_channels": "1"})},
        {"options": json.dumps(OPTIONS | {"norm": "layer"})},
        {"options": json.dumps(OPTIONS | {"norm": ["batch"]})},
        {"options": json.dumps(OPTIONS | {"input_norm_eps": float("nan")})},
        {"options": json.dumps(OPTIONS | {"input_norm_eps": 0})},
        {"options": json.dumps(OPTIONS | {"input_norm_eps": None})},
        {"options": json.dumps(OPTIONS | {"extra": 1})},
        {"normalize": None},
        {"normalize": "95"},
        {"normalize": "[1]"},
        {"normalize": "[1, 2, 3]"},
        {"normalize": "[NaN, 1]"},
        {"normalize": "[1, 0]"},
        {"normalize": "[1, -1]"},
        {"normalize": "[1, Infinity]"},
        {"normalize": '["a", 1]'},
    ],
)
def test_metadata_that_lies(change, state, tmp_path):
    path = tmp_path / "own.safetensors"
    values = {key: value for key, value in (METADATA | change).items() if value is not None}
    save_file(dict(state), path, metadata=values)
    refused(path)


def test_the_metadata_of_these_tests_is_sound(state, tmp_path):
    path = tmp_path / "own.safetensors"
    save_file(dict(state), path, metadata=METADATA)
    assert load_checkpoint("acm", path).normalize == (95.0, 41.5)


def test_metadata_of_another_variant(state, tmp_path):
    """A file that says 3 channels and holds 1 must not be reshaped into fitting."""
    path = tmp_path / "own.safetensors"
    save_checkpoint(path, "acm", NetworkOptions(3, "batch", 1e-5), state, (0, 1))
    assert "of another shape" in refused(path)
