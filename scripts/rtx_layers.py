"""Write benchmarks/results/rtx-layers.json: what engines of TensorRT for RTX compute in INT8.

Each network is built in each precision by NVIDIA's own library, which needs no GPU, and the layer
table that it prints is kept convolution by convolution. Nothing is run, so no time is in it.

    python scripts/rtx_layers.py [--target rtx-40] [--out FILE]
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx

from irstd.compile.builders.tensorrt_rtx import RtxEngine, build_rtx_engine
from irstd.compile.builders.tensorrt_rtx_bundle import engine_facts
from irstd.compile.builders.tensorrt_rtx_layers import convolution_precisions
from irstd.compile.frame_sets import golden_frames
from irstd.compile.lower import lower
from irstd.compile.networks import NETWORKS
from irstd.compile.prepare import Prepared, prepare
from irstd.compile.settings import LoweringSettings, Normalization, SourceSettings
from irstd.compile.shipped import shipped_names
from irstd.compile.sources import open_source
from irstd.errors import IrstdError
from irstd.files import write_atomic
from irstd.targets import TARGETS, find_target
from irstd.types import Precision

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "benchmarks" / "results" / "rtx-layers.json"
COLUMNS = (
    "Network", "Weights", "Precision", "INT8 convolutions", "FP16", "FP32", "INT8 ones write",
    "Layers", "Activations moved MB", "Engine MB",
)  # fmt: skip
SEED = 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--target", default="rtx-40", choices=[*_rtx_targets()])
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(argv)
    rows: list[list[Any]] = []
    layers: dict[str, dict[str, dict[str, str]]] = {}
    library = ""
    for name, weights, prepared in _networks():
        frames = golden_frames([], prepared.spec, SEED)
        for precision in Precision:
            settings = LoweringSettings(options.target, precision)
            model = lower(prepared, settings, frames).model
            engine = build_rtx_engine(
                model, find_target(options.target).compute_capability or (0, 0)
            )
            facts = engine_facts(model, engine)
            library = engine.library
            counts = facts["convolutions"]
            rows.append([
                name, weights, precision.value,
                *(counts.get(kind, 0) for kind in ("int8", "fp16", "fp32")),
                _written(engine), facts["layers"], round(facts["moved_bytes"] / 1e6, 1),
                round(facts["plan_bytes"] / 1e6, 1),
            ])  # fmt: skip
            nodes = onnx.load_model_from_string(model).graph.node
            names = [node.name for node in nodes if node.op_type in ("Conv", "ConvTranspose")]
            found = convolution_precisions(engine.layers, names)
            layers.setdefault(name, {})[precision.value] = found
            print(*rows[-1], file=sys.stderr)
    content = {
        "command": "python scripts/rtx_layers.py",
        "method": f"from the layer table that {library} prints when it builds for "
        f"{options.target}; nothing was run; calibrated on simulated frames",
        "library": library,
        "target": options.target,
        "columns": COLUMNS,
        "rows": rows,
        "convolutions": layers,
    }
    write_atomic(options.out, json.dumps(content, indent=1) + "\n")
    return 0


def _written(engine: RtxEngine) -> str | None:
    """Return the types in which INT8 convolutions write their results."""
    layers = (layer for layer in engine.layers if layer.precision == "int8")
    kinds = {kind for layer in layers if layer.kind == "correlation" for kind in layer.writes}
    return ", ".join(sorted(kinds)) or None


def _rtx_targets() -> Iterator[str]:
    return (name for name, target in TARGETS.items() if "tensorrt_rtx" in target.engines)


def _networks() -> Iterator[tuple[str, str, Prepared]]:
    """Yield each network at its default size: shipped weights where there are any, else seeded."""
    with tempfile.TemporaryDirectory() as folder:
        for name, spec in NETWORKS.items():
            if name in shipped_names():
                given, weights = SourceSettings(name), "shipped"
            else:
                path = Path(folder) / f"{name}.onnx"
                path.write_bytes(_seeded(name))
                normalize = Normalization((80.0,), (40.0,))
                given = SourceSettings(str(path), imgsz=spec.default_size_hw, normalize=normalize)
                weights = "seeded"
            yield name, weights, prepare(open_source(given), given)


def _seeded(name: str) -> bytes:
    import torch

    from irstd.compile.export import export

    torch.manual_seed(SEED)
    spec = NETWORKS[name]
    return bytes(export(spec.build().eval(), spec.in_channels).SerializeToString())


if __name__ == "__main__":
    try:
        sys.exit(main())
    except IrstdError as error:
        print(f"rtx_layers: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
