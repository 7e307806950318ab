"""Our TensorRT builder over a genuine library: TensorRT for RTX, which needs no GPU to build.

Usage: builder_over_rtx.py CASE   (in a process of its own; prints one JSON object)

TensorRT for RTX has the interface of TensorRT 10, and its own version numbers. What is called here
is NVIDIA's parser and builder, not a double; only running and inspecting an engine wants a GPU.
"""

import json
import sys
from types import ModuleType
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from irstd.compile.builders import tensorrt
from irstd.errors import IrstdError
from irstd.runtime.tensorrt.rtx import load_tensorrt_rtx

node = helper.make_node


def graph(*nodes: Any) -> bytes:
    image, mask = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 1, 8, 8)) for name in ("x", "y")
    )
    constants = [
        numpy_helper.from_array(np.ones((1, 1, 3, 3), np.float32), "weight"),
        numpy_helper.from_array(np.int64([4]), "axis"),
    ]
    made = helper.make_graph(nodes, "graph", [image], [mask], constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("irstd", 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8).SerializeToString()


SOUND = graph(
    node("Conv", ["x", "weight"], ["a"], "conv", pads=[1] * 4), node("Relu", ["a"], ["y"], "relu")
)
GRAPHS = {
    "ours": graph(node("HaarGate", ["x"], ["y"], "gate", domain="irstd")),
    "lacking": graph(
        node("Unsqueeze", ["x", "axis"], ["a"], "more"), node("DFT", ["a"], ["b"], "dft"),
        node("ReduceSum", ["b", "axis"], ["y"], "less", keepdims=0),
    ),
    "types": graph(
        node("Cast", ["x"], ["a"], "half", to=TensorProto.FLOAT16),
        node("Add", ["x", "a"], ["y"], "mixed"),
    ),
    "rubbish": b"rubbish",
}  # fmt: skip


def stop(phase: str, done: int, steps: int) -> None:
    raise ZeroDivisionError(phase)


def build(trt: ModuleType, case: str) -> dict[str, Any]:
    told: list[Any] = []
    settings = tensorrt.PlanSettings(
        memory_bytes=8 << 30,
        dla_core=0 if case == "dla" else None,
        version_compatible=case == "later",
    )
    if case != "inspected":
        tensorrt.inspect_plan = lambda plan, **_: ()
    try:
        built = tensorrt.build_plan(
            GRAPHS.get(case, SOUND),
            settings,
            timing_cache=b"rubbish" if case == "cache" else b"",
            tell=stop if case == "stopped" else lambda *step: told.append(step),
            trt=trt,
        )
    except (IrstdError, ZeroDivisionError) as error:
        return {"error": type(error).__name__, "message": str(error)}
    return {"bytes": len(built.plan), "notes": built.notes, "told": told, "library": built.library}


if __name__ == "__main__":
    module = ModuleType("tensorrt")
    module.__dict__.update(vars(load_tensorrt_rtx()))
    module.__dict__["__version__"] = "10.13.0"
    print(json.dumps(build(module, sys.argv[1])))
