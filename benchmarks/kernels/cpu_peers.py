"""What the CPU kernels are timed against: the same operator in torch and as a plain graph.

The plain graph is the one that `irstd.compile.operators` writes out, already in the form that runs
fastest of those tried, and it keeps weights as constants, so that engines prepare them.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irstd.benchmarks.kernels.cases import Array, Case
from irstd.errors import MissingDependency
from irstd.runtime.kernels.ms_deform_attn.reference import Projections
from irstd.runtime.sessions.openvino_session import openvino_core

Run = Callable[[], Array]

OPERATORS = {
    "haar_gate": "HaarGate",
    "ms_deform_attn": "MSDeformAttn",
    "spectral_split": "SpectralSplit",
}
WEIGHTS = ("weight", "bias", "cutoff", "gate_weight", "gate_bias", "gamma")


@dataclass(frozen=True)
class Work:
    """What peers compute.

    Attributes:
        arrays: Inputs, float32.
        torch: Returns a function that takes them as tensors, by name; imports torch when called.
        graph: Returns a serialized plain graph that takes those it names.
    """

    arrays: Mapping[str, Array]
    torch: Callable[[], Callable[..., Any]]
    graph: Callable[[], bytes]


def work_of(case: Case, arrays: Mapping[str, Array]) -> Work:
    """Return what peers compute of a case in float32."""
    return Work(arrays, lambda: torch_function(case), functools.partial(_plain_graph, case, arrays))


def module_work(
    arrays: Mapping[str, Array],
    layers: Projections,
    heads: int,
    where: Mapping[str, Sequence[int]],
) -> Work:
    """Return what peers compute of deformable attention with its projections.

    Args:
        arrays: `query`, (1, Lq, C), and `source`, (1, S, C), float32.
        layers: The weights.
        heads: M.
        where: `level_hw` and `query_hw` of the operator.
    """
    return Work(
        arrays,
        lambda: _torch_module(layers, heads, where),
        lambda: _module_graph(arrays, layers, heads, where),
    )


def peers(work: Work, threads: int) -> Iterator[tuple[str, Run]]:
    """Yield each peer that is installed, ready to run: its name and a function that computes once.

    Args:
        work: What each computes.
        threads: That each call may use.
    """
    for name, make in (("torch", _torch), ("onnxruntime", _onnxruntime), ("openvino", _openvino)):
        try:
            yield name, make(work, threads)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise MissingDependency(
                    f"{error.name} is not installed, and plain graphs need it; "
                    "pip install 'irstd-sdk[compile,train]'"
                ) from error


def torch_function(case: Case) -> Callable[..., Any]:
    """Return the plain torch operators of a case, which take its arrays as tensors, by name."""
    from irstd.compile.operators.haar_gate import haar_gate
    from irstd.compile.operators.ms_deform_attn import ms_deform_attn
    from irstd.compile.operators.spectral_split import spectral_split

    functions: dict[str, Callable[..., Any]] = {
        "haar_gate": haar_gate,
        "ms_deform_attn": ms_deform_attn,
        "spectral_split": spectral_split,
    }
    return functools.partial(functions[case.op], **case.keywords)


def _torch_module(
    layers: Projections, heads: int, where: Mapping[str, Sequence[int]]
) -> Callable[..., Any]:
    import torch

    from irstd.compile.operators.ms_deform_attn import MSDeformAttn

    levels = len(where["level_hw"]) // 2
    points = len(layers.logit_bias) // (heads * levels)
    module = MSDeformAttn(layers.value_weight.shape[1], levels, heads, points).eval()
    named = {
        "value_proj": (layers.value_weight, layers.value_bias),
        "sampling_offsets": (layers.offset_weight, layers.offset_bias),
        "attention_weights": (layers.logit_weight, layers.logit_bias),
        "output_proj": (layers.output_weight, layers.output_bias),
    }
    module.load_state_dict(
        {
            f"{name}.{part}": torch.from_numpy(array)
            for name, pair in named.items()
            for part, array in zip(("weight", "bias"), pair, strict=True)
        }
    )
    return functools.partial(module, **where)


def _torch(work: Work, threads: int) -> Run:
    import torch

    function = work.torch()
    tensors = {name: torch.from_numpy(array) for name, array in work.arrays.items()}
    torch.set_num_threads(threads)

    @torch.inference_mode()
    def run() -> Array:
        result: Array = function(**tensors).numpy()
        return result

    return run


def _onnxruntime(work: Work, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(
        work.graph(), options, providers=["CPUExecutionProvider"]
    )
    feed = {item.name: work.arrays[item.name] for item in session.get_inputs()}

    def run() -> Array:
        result: Array = session.run(None, feed)[0]
        return result

    return run


def _openvino(work: Work, threads: int) -> Run:
    import openvino

    core = openvino_core()
    # Without the hint float32 graphs silently run in bf16 on CPUs that have it.
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
    }
    compiled = core.compile_model(core.read_model(work.graph()), "CPU", settings)
    request = compiled.create_infer_request()
    held = [(port, work.arrays[port.any_name]) for port in compiled.inputs]
    for port, array in held:
        request.set_tensor(port, openvino.Tensor(array, shared_memory=True))

    def run() -> Array:
        request.infer()
        result: Array = request.get_output_tensor(0).data
        return result

    return run


def _plain_graph(case: Case, arrays: Mapping[str, Array]) -> bytes:
    from irstd.compile.operators.single import plain_graph

    shape = _result_shape(case, arrays)
    model = plain_graph(OPERATORS[case.op], arrays, shape, constants=WEIGHTS, **case.keywords)
    serialized: bytes = model.SerializeToString()
    return serialized


def _result_shape(case: Case, arrays: Mapping[str, Array]) -> tuple[int, ...]:
    if case.op != "ms_deform_attn":
        return arrays["x"].shape
    images, queries, heads = arrays["logits"].shape[:3]
    return images, queries, heads * int(np.prod(arrays["value"].shape[3:]))


def _module_graph(
    arrays: Mapping[str, Array],
    layers: Projections,
    heads: int,
    where: Mapping[str, Sequence[int]],
) -> bytes:
    from irstd.compile.operators.single import plain_module

    shapes = {name: array.shape for name, array in arrays.items()}
    serialized: bytes = plain_module(
        layers, heads, shapes, level_hw=where["level_hw"], query_hw=where["query_hw"]
    ).SerializeToString()
    return serialized
