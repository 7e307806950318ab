import numpy as np
import pytest
from onnx import helper

from irstd import devices
from irstd.compile.dla import MAX_LOADABLES, dla_report
from irstd.targets import TARGETS

node = helper.make_node
AGX = devices.AGX_ORIN_64GB


def reasons(make_small, nodes, constants=None, **options):
    options = {"channels": 4, "out_channels": 4, "size_hw": (16, 16), **options}
    report = dla_report(make_small(nodes, constants, **options), AGX)
    return [row.reason for row in report.nodes]


def weight(*shape):
    return np.ones(shape, np.float32)


CASES = [
    ("conv", node("Conv", ["image", "w"], ["logits"], pads=[1] * 4), weight(4, 4, 3, 3), ""),
    (
        "conv-kernel",
        node("Conv", ["image", "w"], ["logits"], pads=[17, 17, 17, 17]),
        weight(4, 4, 35, 35),
        "kernel 35: it must be 1 to 32",
    ),
    (
        "conv-stride",
        node("Conv", ["image", "w"], ["logits"], strides=[9, 9]),
        weight(4, 4, 3, 3),
        "stride 9: it must be 1 to 8",
    ),
    (
        "conv-dilation",
        node("Conv", ["image", "w"], ["logits"], dilations=[33, 33], pads=[31] * 4),
        weight(4, 4, 2, 2),
        "dilation 33: it must be 1 to 32",
    ),
    (
        "up",
        node("ConvTranspose", ["image", "w"], ["logits"], strides=[2, 2]),
        weight(4, 4, 2, 2),
        "",
    ),
    (
        "up-padding",
        node("ConvTranspose", ["image", "w"], ["logits"], strides=[2, 2], pads=[1] * 4),
        weight(4, 4, 4, 4),
        "its padding must be 0",
    ),
    (
        "up-grouped",
        node("ConvTranspose", ["image", "w"], ["logits"], group=4),
        weight(4, 1, 2, 2),
        "it must not be grouped",
    ),
    (
        "up-dilated",
        node("ConvTranspose", ["image", "w"], ["logits"], dilations=[2, 2]),
        weight(4, 4, 2, 2),
        "it must not be dilated",
    ),
    ("pool", node("MaxPool", ["image"], ["logits"], kernel_shape=[3, 3], pads=[1] * 4), None, ""),
    (
        "pool-window",
        node("AveragePool", ["image"], ["logits"], kernel_shape=[9, 9]),
        None,
        "window 9: it must be 1 to 8",
    ),
    (
        "global",
        node("GlobalAveragePool", ["image"], ["logits"]),
        None,
        "TensorRT does not run this operator on DLA",
    ),
    ("sigmoid", node("Sigmoid", ["image"], ["logits"]), None, ""),
    (
        "gelu",
        node("Erf", ["image"], ["logits"]),
        None,
        "TensorRT does not run this operator on DLA",
    ),
    ("add", node("Add", ["image", "w"], ["logits"]), weight(1, 4, 1, 1), ""),
    (
        "add-row",
        node("Add", ["image", "w"], ["logits"]),
        weight(1, 1, 1, 16),
        "an operand of shape (1, 1, 1, 16) is broadcast along the height or width",
    ),
]


@pytest.mark.parametrize(("operator", "constant", "reason"), [c[1:] for c in CASES],
                         ids=[c[0] for c in CASES])  # fmt: skip
def test_one_rule_at_a_time(make_small, operator, constant, reason) -> None:
    constants = {} if constant is None else {"w": constant}
    assert reasons(make_small, [operator], constants) == [reason]


@pytest.mark.parametrize(
    ("mode", "transformation", "factor", "reason"),
    [
        ("nearest", "asymmetric", 32.0, ""),
        ("nearest", "half_pixel", 33.0, "it must enlarge by a whole number up to 32"),
        ("linear", "half_pixel", 4.0, ""),
        ("linear", "half_pixel", 5.0, "it must enlarge by a whole number up to 4"),
        ("linear", "half_pixel", 1.5, "it must enlarge by a whole number up to 4"),
        ("linear", "align_corners", 2.0, "bilinear resizing must be half_pixel"),
        ("cubic", "half_pixel", 2.0, "mode cubic: it must be nearest or bilinear"),
    ],
)
def test_resizing(make_small, mode, transformation, factor, reason) -> None:
    resize = node(
        "Resize", ["image", "", "s"], ["logits"], mode=mode,
        coordinate_transformation_mode=transformation,
    )  # fmt: skip
    scales = {"s": np.float32([1, 1, factor, factor])}
    assert reasons(make_small, [resize], scales) == [reason]


def test_joins_along_the_channels_only(make_small) -> None:
    join = node("Concat", ["image", "image"], ["logits"], axis=1)
    assert reasons(make_small, [join], out_channels=8) == [""]
    stack = node("Concat", ["image", "image"], ["logits"], axis=2)
    assert "along the channels" in reasons(make_small, [stack])[0]


def test_sides_end_at_8192(make_small) -> None:
    relu = node("Relu", ["image"], ["logits"])
    assert reasons(make_small, [relu], size_hw=(1, 8192)) == [""]
    assert "longer than 8192" in reasons(make_small, [relu], size_hw=(1, 8193))[0]


def test_pieces_and_share(make_small) -> None:
    nodes = [
        node("Conv", ["image", "w"], ["a"], "first", pads=[1] * 4),
        node("Relu", ["a"], ["b"], "relu"),
        node("Erf", ["b"], ["c"], "erf"),
        node("Conv", ["c", "w"], ["d"], "second", pads=[1] * 4),
        node("ConvTranspose", ["d", "w"], ["logits"], "up", pads=[1] * 4),
    ]
    model = make_small(nodes, {"w": weight(4, 4, 3, 3)}, channels=4, out_channels=4)
    report = dla_report(model, AGX)
    assert [row.fits for row in report.nodes] == [True, True, False, True, False]
    assert report.loadables == 2
    assert report.fits_loadables
    assert report.mac_share == pytest.approx(2 / 3, rel=0.01)
    assert list(report.reasons.values()) == [1, 1]


def test_more_pieces_than_a_core_keeps(make_small) -> None:
    nodes, value = [], "image"
    for index in range(MAX_LOADABLES + 1):
        nodes += [
            node("Relu", [value], [f"r{index}"], f"relu{index}"),
            node("Erf", [f"r{index}"], [f"e{index}"], f"erf{index}"),
        ]
        value = f"e{index}"
    nodes.append(node("Identity", [value], ["logits"], "end"))
    report = dla_report(make_small(nodes), AGX)
    assert report.loadables == MAX_LOADABLES + 1
    assert not report.fits_loadables


def test_quantizing_and_constants_are_no_operators(make_small) -> None:
    constants = {"s": np.float32(0.1), "z": np.int8(0), "w": np.ones((4, 4, 1, 1), np.int8)}
    nodes = [
        node("QuantizeLinear", ["image", "s", "z"], ["q"], "q"),
        node("DequantizeLinear", ["q", "s", "z"], ["d"], "d"),
        node("DequantizeLinear", ["w", "s", "z"], ["dw"], "dw"),
        node("Conv", ["d", "dw"], ["logits"], "conv"),
    ]
    model = make_small(nodes, constants, channels=4, out_channels=4)
    assert [(row.name, row.fits) for row in dla_report(model, AGX).nodes] == [("conv", True)]


def test_there_is_no_report_where_there_is_no_dla(make_small) -> None:
    model = make_small([node("Relu", ["image"], ["logits"])])
    for target in TARGETS.values():
        if target.device is not None:
            found = dla_report(model, target.device)
            assert (found is not None) == bool(target.device.dla_cores)
