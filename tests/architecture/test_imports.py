"""What each layer may load, tried in a process where the rest cannot be imported."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A finder before all others, so that an installed library counts as absent.
BLOCKER = """
import sys

class Blocker:
    def __init__(self, names):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"blocked: {name}", name=name)
        return None

def block(*names):
    sys.meta_path.insert(0, Blocker(names))

"""
TRAINING = ("torch", "lightning_fabric", "onnx", "onnxsim", "tensorrt")
ENGINES = ("onnxruntime", "openvino", "cv2")


def modules_of(folder, package):
    for path in sorted((ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT / folder).with_suffix("").parts
        yield ".".join([package, *(part for part in parts if part != "__init__")])


LIGHT = {
    "irstd": list(modules_of("sdk", "irstd")),
    "irstd.runtime": list(modules_of("runtime", "irstd.runtime")),
    "irstd.calibration": list(modules_of("calibration", "irstd.calibration")),
    "irstd.benchmarks": list(modules_of("benchmarks", "irstd.benchmarks")),
}


@pytest.mark.parametrize("layer", LIGHT)
def test_every_module_imports_without_training_libraries_and_engines(layer, run_python):
    imports = "\n".join(f"import {module}" for module in LIGHT[layer])
    run_python(f"{BLOCKER}block({', '.join(map(repr, TRAINING + ENGINES))})\n{imports}")


def test_the_blocker_blocks(run_python):
    with pytest.raises(AssertionError, match="blocked: torch"):
        run_python(f"{BLOCKER}block('torch')\nimport torch")


@pytest.mark.parametrize("layer", LIGHT)
def test_importing_a_layer_loads_no_heavy_library(layer, run_python):
    imports = "\n".join(f"import {module}" for module in LIGHT[layer])
    loaded = run_python(f"{imports}\nimport sys; print(*sys.modules)").split()
    assert not {*TRAINING, *ENGINES, "matplotlib", "scipy"} & set(loaded)
    if layer != "irstd.benchmarks":
        assert not [name for name in loaded if name.startswith("irstd.compile")]


def test_the_facade_loads_nothing_until_it_is_used(run_python):
    loaded = run_python("import irstd, sys; print(*sys.modules)").split()
    assert "numpy" not in loaded
    assert [n for n in loaded if n.startswith("irstd.")] == ["irstd.version"]


def test_the_compile_command_lists_and_explains_without_torch(run_python):
    """What a user without torch types first: networks, targets, help."""
    code = f"""{BLOCKER}block('torch', 'lightning_fabric')
from irstd.compile import NETWORKS, TARGETS, build_bundle
from irstd.compile.command import main
raise SystemExit(main(["networks", "--json"]))
"""
    listed = json.loads(run_python(code))["networks"]
    assert {"acm", "alcnet"} <= {network["name"] for network in listed}


def test_a_missing_library_is_one_line_with_the_command_that_mends_it(run_python, tmp_path):
    code = f"""{BLOCKER}block('torch', 'lightning_fabric')
import contextlib, io, pathlib, sys
from irstd.compile.command import main
folder = pathlib.Path(sys.argv[1])
for name in ("train.txt", "val.txt"):
    (folder / name).write_text("a")
config = folder / "x.yaml"
config.write_text("network: acm\\ndata: [{{path: .}}]\\nout: run\\n")
with contextlib.redirect_stderr(io.StringIO()) as err:
    code = main(["distil", str(config)])
print(code, err.getvalue())
"""
    said = run_python(code, str(tmp_path))
    assert said.startswith("3 ")
    assert "pip install 'irstd-sdk[train]'" in said
    assert not (tmp_path / "run").exists()
