import subprocess
import sys

import pytest

import irstd

HEAVY = (
    "torch",
    "onnx",
    "cv2",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "scipy",
    "yaml",
    "hypothesis",
)


def loaded_by(statement):
    """Which of the heavy modules, and numpy, a fresh interpreter loads for a statement."""
    listing = f"{statement}; import sys; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, check=True
    )
    return set(run.stdout.split()) & {*HEAVY, "numpy"}


def test_importing_the_runtime_loads_numpy_and_no_engine():
    assert loaded_by("import irstd.runtime, irstd.runtime.command") == {"numpy"}


def test_importing_the_facade_loads_nothing():
    assert (
        loaded_by("import irstd; irstd.errors.IrstdError; irstd.__version__; dir(irstd)") == set()
    )


def test_the_runtime_works_where_training_packages_cannot_be_imported():
    blocked = "import sys; sys.modules.update(dict.fromkeys(['torch', 'onnx', 'tensorrt'])); "
    assert loaded_by(f"{blocked}import irstd; irstd.open_bundle; irstd.evaluate") <= {
        "numpy",
        "torch",  # present as the entry that blocks it
        "onnx",
        "tensorrt",
    }


def test_the_facade_offers_what_it_lists():
    for name in irstd.__all__:
        assert getattr(irstd, name) is not None
        assert name in dir(irstd)
    assert irstd.errors.IrstdError is irstd.IrstdError
    with pytest.raises(AttributeError, match="no attribute 'open_bundles'"):
        irstd.open_bundles  # noqa: B018
