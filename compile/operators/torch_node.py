"""How a torch module becomes one node of domain `irstd` when it is exported. Needs torch."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from irstd.runtime.kernels.openvino_extension import DOMAIN

Plain = Callable[..., Tensor]
# What stands for an operator while `replaced` is in force: (operator, plain, tensors, attributes).
Replacement = Callable[[str, Plain, tuple[Tensor, ...], dict[str, tuple[int, ...]]], Tensor]
_replacement: contextvars.ContextVar[Replacement | None] = contextvars.ContextVar(
    "replacement", default=None
)


def fused(
    operator: str,
    plain: Plain,
    *tensors: Tensor,
    **attributes: tuple[int, ...],
) -> Tensor:
    """Return `plain(*tensors, **attributes)`, which an export records as one node.

    Args:
        operator: Type of the node.
        plain: What it computes, in torch operators, differentiable.
        tensors: Inputs of the node, in order.
        attributes: Lists of integers, attributes of the node.
    """
    if replacement := _replacement.get():
        return replacement(operator, plain, tensors, attributes)
    if not torch.onnx.is_in_onnx_export():
        return plain(*tensors, **attributes)
    result: Tensor = _Node.apply(operator, attributes, *tensors)  # type: ignore[no-untyped-call]
    return result


@contextlib.contextmanager
def replaced(replacement: Replacement) -> Iterator[None]:
    """Let something else stand for every fused operator, for tracers that are not ONNX's."""
    token = _replacement.set(replacement)
    try:
        yield
    finally:
        _replacement.reset(token)


class _Node(torch.autograd.Function):
    """Stands for the operator while the exporter looks: a tensor of the right shape, and a node."""

    @staticmethod
    def forward(
        ctx: Any,
        operator: str,
        attributes: dict[str, tuple[int, ...]],
        *tensors: Tensor,
    ) -> Tensor:
        del ctx, attributes
        if operator != "MSDeformAttn":
            return tensors[0].clone()
        value, _, logits = tensors[:3]
        return logits.new_zeros(*logits.shape[:2], value.shape[2] * value.shape[3])

    @staticmethod
    def symbolic(
        graph: Any,
        operator: str,
        attributes: dict[str, tuple[int, ...]],
        *tensors: Any,
    ) -> Any:
        lists = {f"{name}_i": list(values) for name, values in attributes.items()}
        node = graph.op(f"{DOMAIN}::{operator}", *tensors, **lists)
        like = tensors[0].type()
        node.setType(like.with_sizes([None] * 3) if operator == "MSDeformAttn" else like)
        return node
