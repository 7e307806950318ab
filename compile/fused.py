"""Which fused operators stay nodes for a target's kernels, and which are written out. Needs onnx.

Written out, an operator is a handful of standard ones that every engine has: the plain graph.
NVIDIA's targets get both forms, because only the device knows whether it can compile plugins.
"""

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Collection

from onnx import ModelProto, NodeProto, inliner

from irstd.compile.graph_facts import Shapes
from irstd.compile.onnx_graph import checked, copy_of, known_shapes, with_distinct_names
from irstd.compile.operators.nodes import attention_of, fused_nodes
from irstd.compile.rewrites.dead_code import remove_dead_code
from irstd.compile.rewrites.simplify import simplify
from irstd.errors import BuildError, InputError, MissingDependency
from irstd.runtime.kernels.ms_deform_attn.shapes import MAX_POINTS, check_levels
from irstd.runtime.kernels.openvino_extension import DOMAIN, build_openvino_extension
from irstd.runtime.kernels.spectral_split.cuda import SIDES_PX
from irstd.runtime.sessions import installed_sessions
from irstd.targets import Target

_SET_ASIDE = f"{DOMAIN}.kept"
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Placement:
    """A graph whose fused nodes all have a kernel.

    Attributes:
        model: The graph.
        kernels: Fused nodes, each with its operator.
        written_out: Those that were, each with the reason.
        bodies: Names of the nodes that they became: they compute in float32, as a kernel does.
    """

    model: ModelProto
    kernels: dict[str, str]
    written_out: dict[str, str]
    bodies: frozenset[str]


def place_kernels(model: ModelProto, target: Target) -> Placement:
    """Leave the fused nodes that the target's CPU has a kernel for, and write out the others.

    Args:
        model: FP32 graph of fixed shape whose nodes have distinct names.
        target: Where it will run. Of the targets with a GPU none has a kernel in this graph, which
            every engine must take; see `place_plugins`.
    """
    if not fused_nodes(model):
        return Placement(model, {}, {}, frozenset())
    lacking = _why_no_kernels(target)
    placed = _place(model, lambda node, shapes: lacking or _why_no_kernel(node, shapes))
    if target.compute_capability is None:
        _tell(placed, "kernels")
    return placed


def place_plugins(model: ModelProto) -> Placement:
    """Leave the fused nodes that TensorRT's plugins compute, and write out the others.

    Args:
        model: FP32 graph of fixed shape whose nodes have distinct names.
    """
    placed = _place(model, _why_no_plugin)
    _tell(placed, "plugins, which `finish` compiles on the device")
    return placed


def _place(model: ModelProto, why_not: Callable[[NodeProto, Shapes], str]) -> Placement:
    shapes = known_shapes(model)
    nodes = fused_nodes(model)
    written_out = {node.name: reason for node in nodes if (reason := why_not(node, shapes))}
    kernels = {node.name: node.op_type for node in nodes if node.name not in written_out}
    placed = write_out(model, written_out) if written_out else model
    before = {node.name for node in model.graph.node}
    bodies = frozenset(node.name for node in placed.graph.node) - before
    return Placement(placed, kernels, written_out, bodies)


def _tell(placed: Placement, where: str) -> None:
    for reason, count in sorted(Counter(placed.written_out.values()).items()):
        _log.warning("%d fused operators run as standard ones: %s", count, reason)
    if placed.kernels:
        _log.info("%d fused operators run in %s", len(placed.kernels), where)


def write_out(model: ModelProto, names: Collection[str] | None = None) -> ModelProto:
    """Replace fused nodes by the standard operators of their bodies.

    Args:
        model: Checked graph of fixed shape.
        names: Of the nodes; None for all of them.

    Returns:
        The graph, its constants folded, its nodes with distinct names.
    """
    copy = copy_of(model)
    for node in fused_nodes(copy):
        if names is not None and node.name not in names:
            node.domain = _SET_ASIDE  # which no function is of
    inlined = inliner.inline_local_functions(copy)
    for index in reversed(range(len(inlined.opset_import))):
        if inlined.opset_import[index].domain == DOMAIN:
            del inlined.opset_import[index]
    for node in inlined.graph.node:
        if node.domain == _SET_ASIDE:
            node.domain = DOMAIN
    plain = simplify(checked(inlined, "writing out fused operators"))
    return checked(with_distinct_names(remove_dead_code(plain)), "writing out fused operators")


def _why_no_kernels(target: Target) -> str:
    """Return why a target runs no fused operator at all; empty if it does."""
    if target.compute_capability is not None:
        return "this graph is for engines without plugins"
    if "openvino" not in target.engines or "openvino" not in installed_sessions():
        return "their CPU kernels run in OpenVINO, which is not installed"
    try:
        build_openvino_extension()
    except (MissingDependency, BuildError) as error:
        return f"their CPU kernels cannot be compiled here: {error}"
    return ""


def _why_no_plugin(node: NodeProto, shapes: Shapes) -> str:
    """Return why no CUDA kernel takes one node; empty if one does."""
    if node.op_type != "SpectralSplit":
        return _why_no_kernel(node, shapes)
    sides = shapes.get(node.input[0], ())[2:]
    if not sides or any(side not in SIDES_PX for side in sides):
        return f"no plugin of SpectralSplit fits: sides {sides}; wanted {SIDES_PX} px"
    return ""


def _why_no_kernel(node: NodeProto, shapes: Shapes) -> str:
    """Return why the CPU has no kernel for one node; empty if it has."""
    if node.op_type != "MSDeformAttn":
        return ""
    value, logits = shapes.get(node.input[0], ()), shapes.get(node.input[2], ())
    if len(value) != 4 or len(logits) != 5:
        return "the shapes of its inputs are not known"
    (_, values, _, d_head), points = value, logits[4]
    if values is None or d_head is None or points is None:
        return "the shapes of its inputs are not known"
    level_hw = tuple(side for level in attention_of(node).level_hw for side in level)
    try:
        check_levels(level_hw, values, d_head)
    except InputError as error:
        return f"no kernel of MSDeformAttn fits: {error}"
    if points > MAX_POINTS:
        return f"no kernel of MSDeformAttn fits: {points} points; wanted at most {MAX_POINTS}"
    return ""
