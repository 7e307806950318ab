"""Hold the estimates of a Jetson Orin Nano against TensorRT measurements that others published.

    python scripts/check_estimate_public.py --out benchmarks/results/estimate-public.json

Nobody has published times of this field's networks on these boards, but of two detectors whose
architecture is public: YOLOX-S (Ge et al., 2021) and YOLOv8n. Both are drawn here with random
weights, up to the tensors that their published engines give; parameters and multiply-adds are
checked against those that their authors state. Measured by estimated time is what
irstd.compile.estimate_report.LIKELY rests on.
"""

import argparse
import dataclasses
import io
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from irstd.cli import to_json
from irstd.compile.estimate import estimate_cost, machine_of
from irstd.compile.estimate_layers import Cost, graph_cost
from irstd.compile.half import to_float16
from irstd.compile.rewrites.simplify import simplify
from irstd.devices import ORIN_NANO_8GB
from irstd.errors import IrstdError, ParityFailed
from irstd.files import write_atomic

SIZE = 640


class Unit(nn.Module):
    """A convolution, its BatchNorm folded, and an activation."""

    def __init__(self, wide: int, out: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(wide, out, kernel, stride, kernel // 2)
        self.silu = False

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        x = self.conv(x)
        return x * x.sigmoid() if self.silu else F.leaky_relu(x, 0.1)


class Bottleneck(nn.Module):
    """Two units, with a residual sum or without."""

    def __init__(self, width: int, first_kernel: int, *, residual: bool) -> None:
        super().__init__()
        self.units = nn.Sequential(Unit(width, width, first_kernel), Unit(width, width, 3))
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Refine."""
        refined: Tensor = self.units(x)
        return x + refined if self.residual else refined


class CrossStage(nn.Module):
    """YOLOX: half of the channels through bottlenecks, half past them."""

    def __init__(self, wide: int, out: int, depth: int, *, residual: bool = False) -> None:
        super().__init__()
        half = out // 2
        self.through, self.past, self.last = Unit(wide, half), Unit(wide, half), Unit(out, out)
        self.blocks = nn.Sequential(*(Bottleneck(half, 1, residual=residual) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        """Refine half of the channels."""
        joined: Tensor = self.last(torch.cat([self.blocks(self.through(x)), self.past(x)], 1))
        return joined


class FastStage(nn.Module):
    """YOLOv8: every bottleneck's result is kept."""

    def __init__(self, wide: int, out: int, depth: int, *, residual: bool = False) -> None:
        super().__init__()
        half = out // 2
        self.channels = half
        self.first, self.last = Unit(wide, out), Unit((2 + depth) * half, out)
        self.blocks = nn.ModuleList(Bottleneck(half, 3, residual=residual) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """Refine in steps and join them all."""
        parts = list(self.first(x).split(self.channels, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        joined: Tensor = self.last(torch.cat(parts, 1))
        return joined


class Pyramid(nn.Module):
    """Maximum pooling at several sizes: in parallel (YOLOX), or one after the other (YOLOv8)."""

    def __init__(self, width: int, kernels: Sequence[int], *, parallel: bool) -> None:
        super().__init__()
        self.first, self.last = Unit(width, width // 2), Unit(2 * width, width)
        self.kernels, self.parallel = kernels, parallel

    def forward(self, x: Tensor) -> Tensor:
        """Pool and join."""
        maps = [self.first(x)]
        for kernel in self.kernels:
            source = maps[0] if self.parallel else maps[-1]
            maps.append(F.max_pool2d(source, kernel, 1, kernel // 2))
        joined: Tensor = self.last(torch.cat(maps, 1))
        return joined


def join(low: Tensor, high: Tensor) -> Tensor:
    """Enlarge the coarse map and put it before the fine one."""
    return torch.cat([F.interpolate(low, scale_factor=2.0, mode="nearest"), high], 1)


class YoloxS(nn.Module):
    """YOLOX-S with LeakyReLU, 80 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            Unit(12, 32, 3), Unit(32, 64, 3, 2), CrossStage(64, 64, 1, residual=True)
        )
        self.c3 = nn.Sequential(Unit(64, 128, 3, 2), CrossStage(128, 128, 3, residual=True))
        self.c4 = nn.Sequential(Unit(128, 256, 3, 2), CrossStage(256, 256, 3, residual=True))
        self.c5 = nn.Sequential(
            Unit(256, 512, 3, 2), Pyramid(512, (5, 9, 13), parallel=True), CrossStage(512, 512, 1)
        )
        self.narrow5, self.mix4 = Unit(512, 256), CrossStage(512, 256, 1)
        self.narrow4, self.mix3 = Unit(256, 128), CrossStage(256, 128, 1)
        self.down3, self.out4 = Unit(128, 128, 3, 2), CrossStage(256, 256, 1)
        self.down4, self.out5 = Unit(256, 256, 3, 2), CrossStage(512, 512, 1)
        self.stems = nn.ModuleList(Unit(width, 128) for width in (128, 256, 512))
        self.towers = nn.ModuleList(
            nn.Sequential(Unit(128, 128, 3), Unit(128, 128, 3)) for _ in range(6)
        )
        self.heads = nn.ModuleList(nn.Conv2d(128, out, 1) for _ in range(3) for out in (80, 4, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Return boxes and scores, before decoding."""
        corners = [image[..., y::2, x::2] for y, x in ((0, 0), (1, 0), (0, 1), (1, 1))]
        c3 = self.c3(self.stem(torch.cat(corners, 1)))
        c4 = self.c4(c3)
        p5 = self.narrow5(self.c5(c4))
        p4 = self.narrow4(self.mix4(join(p5, c4)))
        out3 = self.mix3(join(p4, c3))
        out4 = self.out4(torch.cat([self.down3(out3), p4], 1))
        out5 = self.out5(torch.cat([self.down4(out4), p5], 1))
        results = []
        for level, x in enumerate((out3, out4, out5)):
            wide = self.stems[level](x)
            classes, boxes = (self.towers[2 * level + i](wide) for i in range(2))
            score, box, there = self.heads[3 * level : 3 * level + 3]
            parts = [box(boxes), there(boxes).sigmoid(), score(classes).sigmoid()]
            results.append(torch.cat(parts, 1).flatten(2))
        return torch.cat(results, 2)


class Yolov8n(nn.Module):
    """YOLOv8n, 80 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.c3 = nn.Sequential(
            Unit(3, 16, 3, 2), Unit(16, 32, 3, 2), FastStage(32, 32, 1, residual=True),
            Unit(32, 64, 3, 2), FastStage(64, 64, 2, residual=True),
        )  # fmt: skip
        self.c4 = nn.Sequential(Unit(64, 128, 3, 2), FastStage(128, 128, 2, residual=True))
        self.c5 = nn.Sequential(
            Unit(128, 256, 3, 2),
            FastStage(256, 256, 1, residual=True),
            Pyramid(256, (5, 5, 5), parallel=False),
        )
        self.mix4, self.mix3 = FastStage(384, 128, 1), FastStage(192, 64, 1)
        self.down3, self.out4 = Unit(64, 64, 3, 2), FastStage(192, 128, 1)
        self.down4, self.out5 = Unit(128, 128, 3, 2), FastStage(384, 256, 1)
        self.heads = nn.ModuleList(
            nn.Sequential(Unit(width, inner, 3), Unit(inner, inner, 3), nn.Conv2d(inner, out, 1))
            for width in (64, 128, 256)
            for inner, out in ((64, 64), (80, 80))
        )
        for module in self.modules():
            if isinstance(module, Unit):
                module.silu = True

    def forward(self, image: Tensor) -> Tensor:
        """Return boxes and scores, before decoding."""
        c3 = self.c3(image)
        c4 = self.c4(c3)
        c5 = self.c5(c4)
        p4 = self.mix4(join(c5, c4))
        out3 = self.mix3(join(p4, c3))
        out4 = self.out4(torch.cat([self.down3(out3), p4], 1))
        out5 = self.out5(torch.cat([self.down4(out4), c5], 1))
        boxes = [self.heads[2 * i](x).flatten(2) for i, x in enumerate((out3, out4, out5))]
        scores = [self.heads[2 * i + 1](x).flatten(2) for i, x in enumerate((out3, out4, out5))]
        return torch.cat([torch.cat(boxes, 2), torch.cat(scores, 2).sigmoid()], 1)


@dataclasses.dataclass(frozen=True)
class Published:
    """Somebody's measurement: engine time by trtexec at batch 1 and 640 x 640, milliseconds."""

    network: str
    make: Callable[[], nn.Module]
    parameters_m: float  # as the authors state
    gmacs: float  # half of the GFLOPs that they state
    mode: str
    software: str
    source: str
    measured_ms: dict[str, float]


PUBLISHED = (
    Published(
        "yolox-s", YoloxS, 9.0, 13.4, "15W", "JetPack 5.1.2, TensorRT 8.5.2",
        "github.com/Idein/aicast_jetson_benchmark, README.md (power mode not stated: taken to be "
        "the default)",
        {"fp32": 20.9, "fp16": 10.7, "int8": 8.6},
    ),
    Published(
        "yolov8n", Yolov8n, 3.2, 4.35, "MAXN_SUPER", "JetPack 6.2, TensorRT 10.3",
        "github.com/hokwangchoi/jetson-orin-nano-benchmarks, README.md",
        {"fp32": 8.37, "fp16": 4.43, "int8": 3.49},
    ),
)  # fmt: skip


def export(module: nn.Module) -> onnx.ModelProto:
    """Return the graph, its constants as initialisers."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (torch.zeros(1, 3, SIZE, SIZE),),
            content,  # type: ignore[arg-type]  # the tracing exporter writes to buffers too
            opset_version=17,
            dynamo=False,
        )
    model = simplify(onnx.load_model_from_string(content.getvalue()))
    for node in [node for node in model.graph.node if node.op_type == "Constant"]:
        node.attribute[0].t.name = node.output[0]
        model.graph.initializer.append(node.attribute[0].t)
        model.graph.node.remove(node)
    return model


def costs(model: onnx.ModelProto) -> dict[str, Cost]:
    """Return the cost by precision; for INT8 every value is taken to be a byte."""
    plain = graph_cost(model)
    layers = tuple(
        dataclasses.replace(
            layer,
            precision="int8",
            read_bytes=layer.read_bytes // 4,
            weight_bytes=layer.weight_bytes // 4,
            write_bytes=layer.write_bytes // 4,
        )
        for layer in plain.layers
    )
    return {
        "fp32": plain,
        "fp16": graph_cost(to_float16(model)[0]),
        "int8": dataclasses.replace(plain, layers=layers),
    }


def compare(published: Published) -> list[dict[str, Any]]:
    """Estimate what somebody measured.

    Raises:
        ParityFailed: The network drawn here is not the published one.
    """
    torch.manual_seed(0)
    module = published.make()
    parameters_m = sum(value.numel() for value in module.parameters()) / 1e6
    by_precision = costs(export(module))
    gmacs = by_precision["fp32"].macs / 1e9
    for what, got, wanted in (
        ("M parameters", parameters_m, published.parameters_m),
        ("GMAC", gmacs, published.gmacs),
    ):
        if abs(got / wanted - 1) > 0.02:
            raise ParityFailed(f"{published.network} has {got:.2f} {what}, published: {wanted}")
    mode = ORIN_NANO_8GB.mode(published.mode)
    rows = []
    for precision, measured_ms in published.measured_ms.items():
        found = estimate_cost(by_precision[precision], machine_of(ORIN_NANO_8GB, mode, tf32=True))
        rows.append(
            {
                "network": published.network,
                "device": f"{ORIN_NANO_8GB.product}, {published.mode}",
                "precision": precision,
                "measured_ms": measured_ms,
                "estimate_ms": 1e3 * found.seconds,
                "ratio": measured_ms / (1e3 * found.seconds),
                "floor_ms": 1e3 * found.floor_s,
                "bottleneck": found.bottleneck,
                "software": published.software,
                "source": published.source,
            }
        )
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, help="report to write, JSON")
    options = parser.parse_args(argv)
    try:
        rows = [row for published in PUBLISHED for row in compare(published)]
    except IrstdError as error:
        print(f"check_estimate_public: {error}", file=sys.stderr)
        return error.exit_code
    for row in rows:
        print(
            f"{row['network']:8} {row['device']:34} {row['precision']}: measured "
            f"{row['measured_ms']:5.2f} ms, estimate {row['estimate_ms']:5.2f} ms, ratio "
            f"{row['ratio']:.2f}"
        )
    if options.out:
        columns = {
            "network": "Network", "device": "Device, mode", "precision": "Precision",
            "measured_ms": "Measured by others ms", "estimate_ms": "Estimate ms",
            "ratio": "Measured / estimate", "source": "Measurement",
        }  # fmt: skip
        report = {
            "command": "python scripts/check_estimate_public.py "
            "--out benchmarks/results/estimate-public.json",
            "method": "engine times that others published for TensorRT, against the estimate of "
            "the same architecture at 640x640",
            "columns": list(columns.values()),
            "rows": [
                [round(row[key], 2) if isinstance(row[key], float) else row[key] for key in columns]
                for row in rows
            ],
            "results": rows,
        }
        write_atomic(options.out, to_json(report) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
