"""The operators as quickly deployable plugins: which nodes they are, and the kernel of each."""

import ctypes
from collections.abc import Sequence
from functools import partial

from irstd.errors import BuildError
from irstd.runtime.kernels.cpu_library import cpu_library
from irstd.runtime.kernels.cuda.compiler import PTX_ARCHITECTURE, build_ptx
from irstd.runtime.kernels.cuda.launch import Launch
from irstd.runtime.kernels.tensorrt.quick import Attributes, Kernel, Node, Shape

HALF_BYTES, FLOAT_BYTES = 2, 4


def quick_nodes(multiprocessors: int, architecture: int = PTX_ARCHITECTURE) -> list[Node]:
    """Return every node, for `quick.register`.

    Args:
        multiprocessors: Of the GPU that the engine is for.
        architecture: Ten times the compute capability that the PTX asks for; newer GPUs run it.
    """
    return [
        Node(
            "HaarGate",
            ("x", "weight", "bias"),
            (),
            None,
            partial(_haar_gate, multiprocessors, architecture),
        )
    ]


def _haar_gate(
    multiprocessors: int, architecture: int, shapes: Sequence[Shape], half: bool, _: Attributes
) -> Kernel:
    x, weight, bias = shapes
    if len(x) != 4 or weight != (4, 2, 7, 7) or bias != (4,):
        raise BuildError(
            f"HaarGate: got {x}, {weight}, {bias}; wanted (N, C, H, W), (4, 2, 7, 7), (4,)"
        )
    images, channels, height, width = x
    launch, segment_rows = Launch(), ctypes.c_int()
    cpu_library().irstd_haar_gate_launch(
        images, height, width, HALF_BYTES if half else FLOAT_BYTES, multiprocessors,
        ctypes.byref(launch), ctypes.byref(segment_rows),
    )  # fmt: skip
    return Kernel(
        f"irstd_haar_gate_{'f16' if half else 'f32'}",
        build_ptx("haar_gate", architecture).read_text(),
        launch,
        (channels, height, width, segment_rows.value),
    )
