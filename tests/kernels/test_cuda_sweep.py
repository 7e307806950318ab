"""The sweep of shapes that a GPU is checked with, in the host harness under every sanitizer.

Minutes: `make test-kernels`. Each operator's own tests have its small shapes on every run.
"""

import pytest

from irstd.benchmarks.kernels import gpu_machine
from irstd.benchmarks.kernels.cases import check_cases
from irstd.benchmarks.kernels.gpu_machine import CudaMachine
from irstd.benchmarks.kernels.gpu_suite import check_case

CASES = [pytest.param(case, id=f"{case.op} {case.precision} {case.name}") for case in check_cases()]


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["address", "thread"])
@pytest.mark.parametrize("case", CASES)
def test_case_under_sanitizer(host_device, monkeypatch, case, sanitizer):
    monkeypatch.setattr(gpu_machine, "_LEAST_SCRATCH_BYTES", 1)
    device = host_device(sanitizer)
    monkeypatch.setattr(device, "time_ms", lambda run, calls=1: 1.0)
    outcome = check_case(CudaMachine(device), case)
    assert outcome.ok, outcome.error
