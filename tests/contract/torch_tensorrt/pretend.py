"""The genuine Torch-TensorRT 2.13, imported without a GPU and without CUDA's torch.

Its import asks torch for the device at hand: in default arguments and to choose features. What
torch answers is pretended here, an Orin; everything else is the wheel's. `test_torch_tensorrt.py`,
one folder up, runs these files, each in its own process, with the warnings of torch left out.
"""

import importlib
import importlib.metadata
import sys
from types import SimpleNamespace

import torch

CAPABILITY, MULTIPROCESSORS = (8, 7), 8


def pretend_device():
    device = SimpleNamespace(
        name="Orin", major=CAPABILITY[0], minor=CAPABILITY[1], total_memory=8 << 30,
        multi_processor_count=MULTIPROCESSORS,
    )  # fmt: skip
    answers = {
        "current_device": lambda: 0,
        "get_device_capability": lambda *_: CAPABILITY,
        "get_device_properties": lambda *_: device,
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, answer)
    setattr(torch._C, "_CudaDeviceProperties", SimpleNamespace)  # noqa: B010  theirs, an annotation


def import_torch_tensorrt(tensorrt, *, rtx):
    """Import it over the bindings of TensorRT, or those of TensorRT for RTX."""
    pretend_device()
    sys.modules["tensorrt_rtx" if rtx else "tensorrt"] = tensorrt
    if rtx:  # it looks which of its two packages it was installed by
        by_package = {"torch_tensorrt": ["torch-tensorrt-rtx"]}
        importlib.metadata.packages_distributions = lambda: by_package
        sys.modules["tensorrt_bindings"] = None  # type: ignore[assignment]  # beside it: one a process
    return importlib.import_module("torch_tensorrt")
