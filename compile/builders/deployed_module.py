"""A torch module as a bundle's engine computes it: the bundle's tensor in, FP32 logits out.

The rewrites of the ONNX graph, as far as they change what comes in or how it is computed, done to
the module: it takes the tensor that the runtime's preprocessing makes, its norms are plain
multiply-adds, and with FP16 its layers compute in half. Needs torch.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from irstd.compile.settings import Normalization
from irstd.errors import BuildError, ExportError
from irstd.types import InputSpec, Precision

# Half of the largest half: frames that were not seen may go beyond those that were.
LARGEST_ACTIVATION = 65504 / 2
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_HALF_LAYERS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear, *_NORMS)


class Deployed(nn.Module):
    """A network between the bundle's input tensor and its output.

    Args:
        network: Maps the image, normalised as its training did, to logits.
        spec: Size and preprocessing of the bundle.
        normalization: What training did to a frame, for as many channels as `spec` has.
        precision: FP32 or FP16.
    """

    scale: Tensor
    offset: Tensor

    def __init__(
        self,
        network: nn.Module,
        spec: InputSpec,
        normalization: Normalization,
        precision: Precision,
    ) -> None:
        super().__init__()
        if precision not in (Precision.FP32, Precision.FP16):
            raise ExportError(f"a torch module is deployed in fp32 or fp16, not {precision.value}")
        self.network = copy.deepcopy(network).eval()
        settle_norms(self.network)
        self.half_inside = precision is Precision.FP16
        if self.half_inside:
            for layer in self.network.modules():
                if isinstance(layer, _HALF_LAYERS):
                    layer.half()
        scale, offset = _to_training(spec, normalization)
        self.is_identity = all(abs(value - 1) < 1e-6 for value in scale) and not any(offset)
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("offset", torch.tensor(offset, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Map the preprocessed (1, C, H, W) float32 image to (1, 1, H, W) float32 logits."""
        if not self.is_identity:
            image = image * self.scale + self.offset
        logits: Tensor = self.network(image.half() if self.half_inside else image)
        return logits.float()


def settle_norms(network: nn.Module) -> None:
    """Fold the running statistics of every BatchNorm into its weight and bias, in place.

    A builder that folds them itself does so in the layer's precision, and a variance is what half
    cannot hold. Computed in float64; the norm that remains has mean 0, variance 1 and eps 0.

    Raises:
        ExportError: A BatchNorm without running statistics, which depends on the frame.
    """
    for name, norm in network.named_modules():
        if not isinstance(norm, _NORMS):
            continue
        mean, variance = norm.running_mean, norm.running_var
        if mean is None or variance is None:
            raise ExportError(f"{name}: a BatchNorm without running statistics cannot be deployed")
        ones = torch.ones_like(mean)
        weight = norm.weight if norm.affine else ones
        bias = norm.bias if norm.affine else torch.zeros_like(mean)
        scale = weight.double() / (variance.double() + norm.eps).sqrt()
        shift = bias.double() - mean.double() * scale
        dtype = mean.dtype
        norm.affine, norm.eps = True, 0.0
        norm.weight = nn.Parameter(scale.to(dtype), requires_grad=False)
        norm.bias = nn.Parameter(shift.to(dtype), requires_grad=False)
        norm.running_mean, norm.running_var = torch.zeros_like(mean), ones


def refuse_large_activations(deployed: Deployed, inputs: Sequence[Tensor]) -> None:
    """Refuse FP16 for a network whose activations leave its range on these inputs.

    Args:
        deployed: The network in FP32.
        inputs: Preprocessed images.

    Raises:
        BuildError: A layer's output exceeds LARGEST_ACTIVATION; the message names the first.
    """
    largest: dict[str, float] = {}

    def watch(name: str) -> Callable[..., None]:
        def note(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                value = float(output.abs().max())
                if not value <= largest.get(name, 0.0):  # NaN is kept
                    largest[name] = value

        return note

    handles = [
        module.register_forward_hook(watch(name))
        for name, module in deployed.network.named_modules()
    ]
    try:
        with torch.no_grad():
            for image in inputs:
                deployed(image)
    finally:
        for handle in handles:
            handle.remove()
    beyond = [name for name, value in largest.items() if not value <= LARGEST_ACTIVATION]
    if beyond:
        first = beyond[0]  # the others follow from it
        raise BuildError(
            f"{first or 'the network'} reaches {largest[first]:.3g}, half ends at 65504: build "
            "with --precision fp32, or without --builder: that keeps single layers in float32"
        )


def _to_training(spec: InputSpec, normalization: Normalization) -> tuple[list[float], list[float]]:
    """Return scale and offset that turn the bundle's tensor into training's."""
    trained = normalization.for_channels(spec.channels)
    scale, offset = [], []
    for factor, shift, mean, std in zip(
        spec.scale, spec.offset, trained.mean, trained.std, strict=True
    ):
        if not factor:
            raise ExportError("the preprocessing of this bundle cannot be undone: a scale is 0")
        scale.append(1 / (factor * std))
        offset.append((-shift / factor - mean) / std)
    # What rounding leaves of an offset that is 0 is not worth a layer.
    return scale, [0.0 if abs(value) < 1e-6 else value for value in offset]
