"""The GPU suite's real machine, over a device whose kernels run in the host harness."""

import numpy as np
import pytest

from irstd.benchmarks.kernels import gpu_machine
from irstd.benchmarks.kernels.cases import Case
from irstd.benchmarks.kernels.gpu_machine import COPY_SOURCE, CudaMachine
from irstd.benchmarks.kernels.gpu_suite import check_case

LEVELS = ((6, 8), (3, 4))
CASES = [
    Case("haar_gate", "small", "float16", (1, 4, 12, 40)),
    Case("haar_gate", "small", "float32", (2, 1, 5, 7)),
    Case("spectral_split", "whole", "float16", (2, 3, 32, 64)),
    Case("spectral_split", "in parts", "float32", (1, 1, 256, 128)),
    Case("ms_deform_attn", "grid", "float16", (1, 2, 8, 4), LEVELS, (3, 4)),
    Case("ms_deform_attn", "points", "float32", (1, 1, 1, 1), LEVELS, (3, 4), explicit=True),
    Case("ms_deform_attn", "bytes", "uint8", (1, 2, 16, 4), LEVELS, (3, 4)),
]


@pytest.fixture
def machine(host_device, monkeypatch):
    monkeypatch.setattr(gpu_machine, "_LEAST_SCRATCH_BYTES", 1)
    device = host_device()
    monkeypatch.setattr(device.binding, "stream", lambda **_: 7, raising=False)
    monkeypatch.setattr(device, "time_ms", lambda run, calls=1: [run() for _ in range(calls)] and 1)
    return CudaMachine(device)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_our_candidate_computes_the_definition(machine, case):
    outcome = check_case(machine, case)
    assert outcome.ok, outcome.error


def test_a_candidate_that_did_not_run_is_no_result(machine, rng):
    arrays = gpu_machine_inputs(rng)
    assert np.isnan(machine.candidate(CASES[1], arrays).result()).all()


def gpu_machine_inputs(rng):
    return {
        "x": rng.standard_normal(CASES[1].size).astype(np.float32),
        "weight": np.zeros((4, 2, 7, 7), np.float32),
        "bias": np.zeros(4, np.float32),
    }


def test_the_facts_name_the_device(machine):
    facts = machine.facts()
    assert (facts["name"], facts["compute_capability"]) == ("host harness", "8.7")
    assert (machine.stream, facts["driver_cuda"]) == (7, "13.0")


def test_the_device_is_kept_busy_by_more_than_its_cache_holds(machine, monkeypatch):
    filled = []
    monkeypatch.setattr(
        machine._device.binding, "fill", lambda address, byte, nbytes, stream: filled.append(nbytes)
    )
    machine.occupy()
    assert len(filled) == 1 + int(gpu_machine._OCCUPY_MS / 1)
    assert min(filled) > machine.facts()["cache_bytes"]


def test_the_copy_copies_all(host_kernel, rng):
    source = rng.integers(0, 2**32, (100, 4), np.uint32)
    target = np.zeros_like(source)
    host_kernel(COPY_SOURCE, "irstd_copy", (2,), (32,), source, np.uint64(100), target)
    np.testing.assert_array_equal(target, source)
