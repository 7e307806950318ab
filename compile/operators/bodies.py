"""What each fused operator means in standard ONNX operators: the body of a local function.

A body serves as the definition that travels with a graph: tools that do not know the operator run
it. Each is the form that ran fastest in ONNX Runtime and OpenVINO of those tried. Needs onnx.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import FunctionProto, helper, numpy_helper

from irstd.runtime.kernels.haar_gate.reference import BANDS, FILTERS
from irstd.runtime.kernels.openvino_extension import DOMAIN

Constants = Mapping[str, NDArray[Any]]


@dataclasses.dataclass(frozen=True)
class Attention:
    """The attributes of a MSDeformAttn node, checked.

    Attributes:
        level_hw: Height and width of each level, px.
        query_hw: Height and width of the grid of queries, px; None with reference points.
    """

    level_hw: tuple[tuple[int, int], ...]
    query_hw: tuple[int, int] | None

    @property
    def overload(self) -> str:
        """Name of the body among those of the operator."""
        levels = "_".join(f"{height}x{width}" for height, width in self.level_hw)
        queries = "points" if self.query_hw is None else "{}x{}".format(*self.query_hw)
        return f"{levels}_at_{queries}"


def haar_gate_body(opset: int) -> FunctionProto:
    """Return the body of HaarGate(x, weight, bias): models.md 1.8, for maps of any size.

    Sums and differences of shifted maps; the channel mean is filtered as one map, because it
    commutes with the filters.
    """
    text = f"""
        mean_x = {_reduce("ReduceMean", "x", 1, opset)}
        padded = Pad(x, one_row_and_column)
        above = Slice(padded, zero, minus_one, axis_y)
        below = Slice(padded, one, end, axis_y)
        sum_y = Add(above, below)
        difference_y = Sub(above, below)
        sum_left = Slice(sum_y, zero, minus_one, axis_x)
        sum_right = Slice(sum_y, one, end, axis_x)
        difference_left = Slice(difference_y, zero, minus_one, axis_x)
        difference_right = Slice(difference_y, one, end, axis_x)
        LL = Add(sum_left, sum_right)
        HL = Sub(sum_left, sum_right)
        LH = Add(difference_left, difference_right)
        HH = Sub(difference_left, difference_right)
        means = Conv <pads = [1, 1, 0, 0]> (mean_x, filters)
        {", ".join(f"mean_{band}" for band in BANDS)} = Split <axis = 1> (means, each)
    """
    for band in BANDS:
        text += f"""
        twice_{band} = {_reduce("ReduceMax", band, 1, opset)}
        max_{band} = Mul(twice_{band}, half)
        """
    text += f"""
        pooled = Concat <axis = 1> ({", ".join(f"max_{band}, mean_{band}" for band in BANDS)})
        gate_logits = Conv <group = 4, pads = [3, 3, 3, 3]> (pooled, weight, bias)
        gates = Sigmoid(gate_logits)
        gate = ReduceSum <keepdims = 1> (gates, axis_c)
        y = Mul(x, gate)
    """
    constants = {
        "zero": _integers(0),
        "one": _integers(1),
        "minus_one": _integers(-1),
        "end": _integers(np.iinfo(np.int64).max),
        "axis_c": _integers(1),
        "axis_y": _integers(2),
        "axis_x": _integers(3),
        "each": _integers(1, 1, 1, 1),
        "one_row_and_column": _integers(0, 0, 1, 1, 0, 0, 0, 0),
        "half": np.float32(0.5),
        "filters": FILTERS[:, None].astype(np.float32),
    }
    return _function("HaarGate", ("x", "weight", "bias"), text, constants, opset)


def spectral_split_body(opset: int) -> FunctionProto:
    """Return the body of SpectralSplit: models.md 4.5, for maps of any size.

    The response depends on |u| and |v| alone, so a separable real transform diagonalises it as the
    Fourier transform does: Hartley's, cas(t) = cos(t) + sin(t), symmetric and its own inverse.
    """
    text = f"""
        {_hartley_basis("y", 2)}
        {_hartley_basis("x", 3)}
        column_y = Unsqueeze(squared_y, axis_c)
        squared = Add(column_y, squared_x)
        cutoff_map = Unsqueeze(cutoff, axes_yx)
        cutoff_squared = Mul(cutoff_map, cutoff_map)
        ratio = Div(squared, cutoff_squared)
        ratio_squared = Mul(ratio, ratio)
        attenuation = Add(ratio_squared, float_one)
        response = Reciprocal(attenuation)
        rows = MatMul(basis_y, x)
        spectrum = MatMul(rows, basis_x)
        kept = Mul(spectrum, response)
        kept_rows = MatMul(basis_y, kept)
        low = MatMul(kept_rows, basis_x)
        high = Sub(x, low)
        low_mean = {_reduce("ReduceMean", "low", 1, opset)}
        low_max = {_reduce("ReduceMax", "low", 1, opset)}
        high_mean = {_reduce("ReduceMean", "high", 1, opset)}
        high_max = {_reduce("ReduceMax", "high", 1, opset)}
        pooled = Concat <axis = 1> (low_mean, low_max, high_mean, high_max)
        gate_logits = Conv <group = 2, pads = [3, 3, 3, 3]> (pooled, gate_weight, gate_bias)
        gates = Sigmoid(gate_logits)
        low_gate, high_gate = Split <axis = 1> (gates, each)
        gamma_maps = Unsqueeze(gamma, axes_map)
        low_gamma, high_gamma = Split <axis = 0> (gamma_maps, each)
        low_gated = Mul(low, low_gate)
        low_gain = Mul(low_gated, low_gamma)
        high_gated = Mul(high, high_gate)
        high_gain = Mul(high_gated, high_gamma)
        with_low = Add(x, low_gain)
        y = Add(with_low, high_gain)
    """
    constants = {
        "axis_0": _integers(0),
        "axis_c": _integers(1),
        "axes_yx": _integers(1, 2),
        "axes_map": _integers(2, 3),
        "each": _integers(1, 1),
        "first": np.int64(0),
        "step": np.int64(1),
        "float_one": np.float32(1),
        "full_turn": np.float32(2 * math.pi),
    }
    inputs = ("x", "cutoff", "gate_weight", "gate_bias", "gamma")
    return _function("SpectralSplit", inputs, text, constants, opset)


def _hartley_basis(axis: str, index: int) -> str:
    """Return the text that makes basis_<axis> (S, S), orthonormal, and squared_<axis> (S,).

    The phase k n / S is reduced to one turn in integers, because float32 has no digits left for it
    where k n is large. Frequencies above one half are negative ones.
    """
    return f"""
        side_{axis} = Shape <start = {index}, end = {index + 1}> (x)
        stop_{axis} = Squeeze(side_{axis}, axis_0)
        k_{axis} = Range(first, stop_{axis}, step)
        n_{axis} = Unsqueeze(k_{axis}, axis_c)
        product_{axis} = Mul(k_{axis}, n_{axis})
        phase_{axis} = Mod(product_{axis}, side_{axis})
        float_phase_{axis} = Cast <to = 1> (phase_{axis})
        float_side_{axis} = Cast <to = 1> (side_{axis})
        turns_{axis} = Div(float_phase_{axis}, float_side_{axis})
        angle_{axis} = Mul(turns_{axis}, full_turn)
        cos_{axis} = Cos(angle_{axis})
        sin_{axis} = Sin(angle_{axis})
        cas_{axis} = Add(cos_{axis}, sin_{axis})
        norm_{axis} = Sqrt(float_side_{axis})
        basis_{axis} = Div(cas_{axis}, norm_{axis})
        from_end_{axis} = Sub(side_{axis}, k_{axis})
        folded_{axis} = Min(k_{axis}, from_end_{axis})
        float_folded_{axis} = Cast <to = 1> (folded_{axis})
        frequency_{axis} = Div(float_folded_{axis}, float_side_{axis})
        squared_{axis} = Mul(frequency_{axis}, frequency_{axis})
    """


def ms_deform_attn_body(attention: Attention, opset: int) -> FunctionProto:
    """Return the body of MSDeformAttn: models.md 3.3, for these levels and queries.

    One GridSample a level, its points as rows and its queries as columns, so that the weighted sum
    runs over contiguous queries.
    """
    sides = attention.level_hw
    levels = range(len(sides))
    maps, grids, weights, sums = (
        ", ".join(f"{stem}_{level}" for level in levels)
        for stem in ("positions", "grid", "weight", "sum")
    )
    inputs = ["value", "offsets", "logits"]
    constants: dict[str, NDArray[Any]] = {}
    text = ""
    if attention.query_hw is None:
        # From (N, Lq, 2) in [0, 1] to (1, N, 1, 1, Lq, 2) in GridSample's [-1, 1].
        inputs.append("reference_points")
        text += """
        doubled = Mul(reference_points, two)
        centred = Sub(doubled, float_one)
        reference = Unsqueeze(centred, axes_reference)
        """
        constants |= {"two": np.float32(2), "float_one": np.float32(1)}
        constants["axes_reference"] = _integers(0, 2, 3)
    else:
        constants["reference"] = _own_centres(*attention.query_hw)
    text += f"""
        heads = Shape <start = 2, end = 3> (value)
        d_head = Shape <start = 3, end = 4> (value)
        queries = Shape <start = 1, end = 2> (logits)
        points = Shape <start = 4, end = 5> (logits)
        flat_logits = Reshape(logits, all_points)
        softmax = Softmax <axis = -1> (flat_logits)
        by_point = Transpose <perm = [0, 2, 3, 1]> (softmax)
        weight_shape = Concat <axis = 0> (rest, level_count, points, queries)
        by_level = Reshape(by_point, weight_shape)
        {weights} = Split <axis = 1> (by_level, each)
        offsets_by_level = Transpose <perm = [3, 0, 2, 4, 1, 5]> (offsets)
        scaled = Mul(offsets_by_level, per_px)
        locations = Add(scaled, reference)
        {grids} = Split <axis = 0> (locations, each)
        grid_shape = Concat <axis = 0> (rest, points, queries, xy)
        {maps} = Split <axis = 1> (value, position_counts)
    """
    mode = "linear" if opset >= 20 else "bilinear"
    for level in levels:
        text += f"""
        by_channel_{level} = Transpose <perm = [0, 2, 3, 1]> (positions_{level})
        map_shape_{level} = Concat <axis = 0> (rest, d_head, hw_{level})
        map_{level} = Reshape(by_channel_{level}, map_shape_{level})
        points_{level} = Reshape(grid_{level}, grid_shape)
        samples_{level} = GridSample <mode = "{mode}", padding_mode = "zeros", align_corners = 0>
            (map_{level}, points_{level})
        weighted_{level} = Mul(samples_{level}, weight_{level})
        sum_{level} = ReduceSum <keepdims = 0> (weighted_{level}, axis_point)
        """
        constants[f"hw_{level}"] = _integers(*sides[level])
    text += f"""
        total = Sum({sums})
        head_shape = Concat <axis = 0> (rest, heads, d_head, queries)
        by_head = Reshape(total, head_shape)
        by_query = Transpose <perm = [0, 3, 1, 2]> (by_head)
        y = Reshape(by_query, flat)
    """
    constants |= {
        "rest": _integers(-1),
        "xy": _integers(2),
        "all_points": _integers(0, 0, 0, -1),
        "flat": _integers(0, 0, -1),
        "axis_point": _integers(2),
        "each": _integers(*(1 for _ in levels)),
        "level_count": _integers(len(sides)),
        "position_counts": _integers(*(height * width for height, width in sides)),
        "per_px": np.array([[2 / width, 2 / height] for height, width in sides], np.float32)[
            :, None, None, None, None
        ],
    }
    return _function("MSDeformAttn", inputs, text, constants, opset, attention.overload)


def _own_centres(height: int, width: int) -> NDArray[np.float32]:
    """Return (1, 1, 1, 1, height * width, 2): the pixels' centres (x, y) in [-1, 1]."""
    y, x = np.mgrid[:height, :width]
    centres = np.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    return centres.reshape(1, 1, 1, 1, -1, 2).astype(np.float32)


def _integers(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def _reduce(operator: str, value: str, axis: int, opset: int) -> str:
    """Return the text of a reduction, whose axes became an input with opset 18."""
    if opset < 18:
        return f"{operator} <axes = [{axis}], keepdims = 1> ({value})"
    return f"{operator} <keepdims = 1> ({value}, axis_c)"


def _function(
    name: str,
    inputs: Sequence[str],
    text: str,
    constants: Constants,
    opset: int,
    overload: str = "",
) -> FunctionProto:
    """Parse the nodes of a body and put its constants before them."""
    function = onnx.parser.parse_function(
        f'<domain: "{DOMAIN}", opset_import: ["" : {opset}]>'
        f" {name} ({', '.join(inputs)}) => (y) {{ {text} }}"
    )
    function.overload = overload
    nodes = [
        helper.make_node("Constant", [], [key], value=numpy_helper.from_array(np.asarray(value)))
        for key, value in constants.items()
    ]
    nodes += function.node
    del function.node[:]
    function.node.extend(nodes)
    return function
