"""Exact rewrites of the plain graph: one pass a file, in the order of `rewrite`. Needs onnx.

A pass takes a model and returns a new one. Its docstring says what must hold before (Pre) and what
holds after (Post); its test runs the graph before and after on random images, borders included.
"""

from onnx import ModelProto

from irstd.compile.onnx_graph import checked
from irstd.compile.rewrites.append_logit import append_logit
from irstd.compile.rewrites.conv_transpose_phases import split_conv_transpose
from irstd.compile.rewrites.dead_code import remove_dead_code
from irstd.compile.rewrites.fix_shape import fix_shape
from irstd.compile.rewrites.fold_batchnorm import fold_batchnorm
from irstd.compile.rewrites.fold_scale import fold_scale
from irstd.compile.rewrites.input_affine import ChannelAffine, take_input_affine
from irstd.compile.rewrites.simplify import simplify
from irstd.compile.rewrites.strip_sigmoid import strip_sigmoid

__all__ = [
    "ChannelAffine",
    "append_logit",
    "fix_shape",
    "fold_batchnorm",
    "fold_scale",
    "remove_dead_code",
    "rewrite",
    "simplify",
    "split_conv_transpose",
    "strip_sigmoid",
    "take_input_affine",
]


def rewrite(
    model: ModelProto, height: int, width: int, *, split_transposed: bool = False
) -> tuple[ModelProto, ChannelAffine]:
    """Apply every exact rewrite for one input size.

    What the output means stays as it was; `strip_sigmoid` and `append_logit` change that.

    Args:
        model: The exported or loaded graph, with one image input and one mask output.
        height: Of the input, px.
        width: Of the input, px.
        split_transposed: Also replace transposed convolutions, for engines or precisions that run
            them badly.

    Returns:
        The graph, input (1, C, height, width), output (1, 1, height, width), float32, standard
        operators, with the shapes of all values; and the affine that the preprocessing has to
        apply to the normalised image in its place.

    Raises:
        ExportError: The size does not fit the network, or a rewrite fails.
        MissingDependency: onnxsim is not installed.
    """
    model = fix_shape(model, height, width)
    model = simplify(model)
    model = remove_dead_code(model)
    model = fold_batchnorm(model)
    model, affine = take_input_affine(model)
    model = fold_scale(model)
    if split_transposed:
        model = split_conv_transpose(model)
    return checked(remove_dead_code(model), "rewriting"), affine
