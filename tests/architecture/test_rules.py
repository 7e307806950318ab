"""The linters' rules catch what they are for: each is shown the violations planted in a copy."""

import re

# file, line, the chain that import-linter names
IMPORTS = [
    ("runtime/tiles.py", "import irstd.compile.networks", "runtime.tiles -> irstd.compile"),
    ("runtime/draw.py", "import irstd.calibration.split", "runtime.draw -> irstd.calibration"),
    ("calibration/split.py", "import irstd.benchmarks.text", "calibration.split -> irstd.bench"),
    ("benchmarks/text.py", "import irstd.compile.cache", "benchmarks.text -> irstd.compile"),
    ("sdk/errors.py", "import irstd.files", "errors -> irstd.files"),
    ("sdk/types.py", "import irstd.runtime.tiles", "types -> irstd.runtime.tiles"),
    ("runtime/stream.py", "def f():\n    import torch", "runtime.stream -> torch"),
    ("calibration/scales.py", "import onnx", "calibration.scales -> onnx"),
    ("benchmarks/plots.py", "def f():\n    import torch.nn", "benchmarks.plots -> torch"),
    ("sdk/files.py", "import tensorrt", "files -> tensorrt"),
]

# file, line, rule of ruff
STATEMENTS = [
    ("runtime/tiles.py", "import runtime", "TID251"),
    ("runtime/draw.py", "def f():\n    import runtime", "TID251"),
    ("sdk/files.py", "from compile.networks import NETWORKS", "TID251"),
    ("compile/cache.py", "import sdk.errors", "TID251"),
    ("compile/half.py", "import calibration", "TID251"),
    ("compile/verify.py", "from benchmarks import report", "TID251"),
    ("compile/parity.py", "from . import networks", "TID252"),
    ("runtime/stream.py", "import torch", "TID253"),
    ("calibration/split.py", "import onnx", "TID253"),
    ("benchmarks/text.py", "import onnxruntime", "TID253"),
    ("sdk/components.py", "import cv2", "TID253"),
]
ALLOWED = [
    ("runtime/tiles.py", "import irstd.runtime"),
    ("runtime/draw.py", "from irstd import runtime"),
    ("runtime/stream.py", "def f():\n    import cv2"),
    ("compile/cache.py", "import torch"),
    ("sdk/files.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
]
RUFF = ("ruff", "check", "--no-cache", "--select", "TID", "--output-format", "concise", ".")


def plant(folder, file, text):
    path = folder / file
    path.write_text(path.read_text("utf-8") + "\n" + text + "\n", "utf-8")


def test_the_import_rules_hold(copy_tree, run_in):
    done = run_in(copy_tree, "lint-imports")
    assert done.returncode == 0, done.stdout


def test_import_linter_catches_what_is_planted(copy_tree, run_in):
    for file, line, _ in IMPORTS:
        plant(copy_tree, file, line)
    done = run_in(copy_tree, "lint-imports")
    assert done.returncode != 0
    missed = [chain for _, _, chain in IMPORTS if f"irstd.{chain}" not in done.stdout]
    assert not missed, done.stdout


def test_a_module_without_a_layer_is_caught(copy_tree, run_in):
    (copy_tree / "sdk" / "brand_new.py").touch()
    run_in(copy_tree, "python", "scripts/link_tree.py")
    done = run_in(copy_tree, "lint-imports")
    assert done.returncode != 0
    assert "- irstd.brand_new" in done.stdout


def test_every_module_below_compile_is_kept_from_torch(root, setup_cfg):
    modules = {f"irstd.{path.stem}" for path in (root / "sdk").glob("*.py")} - {"irstd.__init__"}
    modules |= {"irstd.runtime", "irstd.calibration", "irstd.benchmarks"}
    listed = setup_cfg("importlinter:contract:light-runtime", "source_modules")
    assert sorted(listed) == sorted(modules)


def test_ruff_catches_what_is_planted_and_nothing_else(copy_tree, run_in):
    clean = run_in(copy_tree, *RUFF)
    assert clean.returncode == 0, clean.stdout
    for file, line, _ in STATEMENTS:
        plant(copy_tree, file, line)
    done = run_in(copy_tree, *RUFF)
    assert done.returncode == 1
    found = re.findall(r"^([\w/.]+):\d+:\d+: (TID\d+)", done.stdout, re.MULTILINE)
    wanted = {(file, rule) for file, _, rule in STATEMENTS}
    assert wanted <= set(found)
    assert {file for file, _ in wanted} == {file for file, _ in found}


def test_ruff_allows_the_real_names_and_lazy_imports(copy_tree, run_in):
    for file, line in ALLOWED:
        plant(copy_tree, file, line)
    done = run_in(copy_tree, *RUFF)
    assert done.returncode == 0, done.stdout
