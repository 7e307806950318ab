"""The layer table as TensorRT for RTX 1.7.1.116 prints it: recorded lines, and broken ones."""

import pytest

from irstd.compile.builders.tensorrt_rtx_layers import (
    EngineLayer,
    convolution_precisions,
    read_layers,
)

NHWC = "Format: (NHWC) Channel major format"
LINEAR = "Format: (Linear) Row major linear format"
# Recorded; constants beyond the second are left out.
CONVOLUTION = (
    "Name: /layer1/layer1.0/conv2/Conv_myl0_10, LayerType: correlation, Inputs: [ { Name: "
    "__mye5207/layer1/layer1.0/conv2/Conv_output_0_before_bias.1_12_myl0, Dimensions: "
    "[1,16,64,64], Strides: [65536,1,1024,16], StrideOrder: [3,0,2,1], Datatype: Int8, "
    f"{NHWC} }}], Constants: [ {{ Name: __mye9683dconst_myl0, Dimensions: [16,16,3,3], Strides: "
    f"[144,1,48,16], StrideOrder: [3,0,2,1], Datatype: Int8, {NHWC} }}, {{ Name: "
    "__mye9688dconst_myl0, Dimensions: [1,16,1,1], Strides: [16,1,16,16], StrideOrder: [3,0,2,1], "
    f"Datatype: Float, {NHWC} }}], Outputs: [ {{ Name: __myln_k_arg__bb1_13_myl0, Dimensions: "
    "[1,16,64,64], Strides: [65536,1,1024,16], StrideOrder: [3,0,2,1], Datatype: Float, "
    f"{NHWC} }}], TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: [ONNX Layer: "
    "/layer1/layer1.0/conv2/Conv][ONNX Layer: /layer1/layer1.0/Relu_output_0_int8_dq]"
)
# What follows a convolution names it, too.
EPILOGUE = (
    "Name: __myl_MulAddReluMulMinMaxRounCast_myl0_2, LayerType: kgen, Inputs: [ { Name: "
    "__myln_k_arg__bb1_4_myl0, Dimensions: [1,8,128,128], Strides: [131072,1,1024,8], StrideOrder: "
    f"[3,0,2,1], Datatype: Float, {NHWC} }}], Constants: [], Outputs: [ {{ Name: a, Dimensions: "
    f"[1,8,128,128], Strides: [1], StrideOrder: [3,0,2,1], Datatype: Int8, {NHWC} }}], TacticName: "
    "__myl_MulAddReluMulMinMaxRounCast_0x80, StreamId: 0, Metadata: [ONNX Layer: "
    "/layer1/layer1.0/conv2/Conv][ONNX Layer: /stem/stem.3/Relu]"
)
# A small convolution that became part of something else; the separator is a control character.
FUSED = (
    "Name: __myl_CorrMulAdd_myl0_32, LayerType: runtime_fusion, Inputs: [ { Name: x, Dimensions: "
    f"[1,8,64,64], Datatype: Half, {NHWC} }}], Constants: [ {{ Name: w, Dimensions: [32,8,1,1], "
    f"Datatype: Half, {NHWC} }}], Outputs: [ {{ Name: y, Dimensions: [1,32,64,64], Datatype: Half, "
    f"{NHWC} }}], TacticName: t, StreamId: 0, Metadata: [ONNX Layer: /fuse2/conv/Conv]\x1f[ONNX "
    "Layer: /fuse2/Sigmoid]__gemm_from_conv1x1\x1f[ONNX Layer: /fuse2/Add]"
)
TABLE = f"Layers:\n{EPILOGUE}\n{CONVOLUTION}\n{FUSED}\n\nI/O Tensors:\n Name: image, LayerType: x"


def test_a_recorded_table():
    epilogue, convolution, fused = read_layers(TABLE)
    assert convolution == EngineLayer(
        "/layer1/layer1.0/conv2/Conv_myl0_10",
        "correlation",
        ("/layer1/layer1.0/conv2/Conv", "/layer1/layer1.0/Relu_output_0_int8_dq"),
        ("Int8",),
        ("Int8", "Float"),
        ("Float",),
        16 * 64 * 64 * (1 + 4),
    )
    assert (epilogue.reads, epilogue.holds, epilogue.writes) == (("Float",), (), ("Int8",))
    assert epilogue.moved_bytes == 8 * 128 * 128 * 5
    assert fused.nodes == ("/fuse2/conv/Conv", "/fuse2/Sigmoid", "/fuse2/Add")


def test_what_convolutions_compute_in():
    wanted = {"/layer1/layer1.0/conv2/Conv": "int8", "/fuse2/conv/Conv": "fp16", "gone": "absent"}
    assert convolution_precisions(read_layers(TABLE), wanted) == wanted


@pytest.mark.parametrize(
    ("reads", "holds", "wanted"),
    [
        (("Int8",), ("Int8", "Float"), "int8"),
        (("Float", "Float"), (), "fp32"),  # weights that are computed, not held
        (("Half",), ("Half",), "fp16"),
        (("Int8",), ("Half",), "mixed"),
        (("BFloat16",), ("BFloat16",), "BFloat16"),
        ((), (), "unknown"),
    ],
)
def test_precision_is_that_of_both_operands(reads, holds, wanted):
    assert EngineLayer("a", "correlation", (), reads, holds, (), 0).precision == wanted


@pytest.mark.parametrize("cut", range(0, len(CONVOLUTION), 40))
def test_a_table_that_is_cut_short_is_read_as_far_as_it_goes(cut):
    layers = read_layers(f"Layers:\n{CONVOLUTION[:cut]}\n{EPILOGUE}")
    assert layers[-1].kind == "kgen"


@pytest.mark.parametrize("text", ["", "Layers:", "Name: , LayerType: ", "\0" * 99, "Name: " * 9999])
def test_what_is_no_table_has_no_layers(text):
    assert read_layers(text) == ()
