"""The layers of an engine, read from what TensorRT's inspector printed."""

import json

import pytest

from irstd.compile.builders.tensorrt_layers import PlanLayer, count_precisions, read_plan_layers
from irstd.errors import BuildError

# Fields and sentences as TensorRT 8 to 10 write them, and those of 11.
TEN = {
    "Layers": [
        {
            "Name": "Reformatting CopyNode for Input Tensor 0 to first",
            "LayerType": "Reformat",
            "Inputs": [{"Name": "x", "Location": "Device", "Dimensions": [1, 3, 224, 224],
                        "Format/Datatype": "Row major linear FP16 format"}],
            "Outputs": [{"Name": "y", "Location": "Device", "Dimensions": [1, 3, 224, 224],
                         "Format/Datatype": "Channel major FP16 format where channel % 4 == 0"}],
            "ParameterType": "Reformat",
            "Origin": "REFORMAT",
        },
        {
            "Name": "conv + relu",
            "LayerType": "CaskConvolution",
            "Inputs": [{"Name": "y", "Dimensions": [16, 512, 28, 28], "Format/Datatype":
                        "Thirty-two wide channel vectorized row major Int8 format."}],
            "Outputs": [{"Name": "z", "Dimensions": [16, 256, 28, 28], "Format/Datatype": "Half"}],
            "TacticName": "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32",
            "Metadata": "[ONNX Layer: /stem/Conv]\x1e[ONNX Layer: /stem/Relu]\x1e"
            "[ONNX Layer: /stem/Conv]",
        },
        {"Name": "__myl_Res", "LayerType": "kgen",
         "Inputs": [{"Name": "z", "Format/Datatype": "Float"}], "Outputs": []},
    ],
    "Bindings": ["x", "z"],
}  # fmt: skip
ELEVEN = {
    "Layers": [
        {"Name": "gemm_0", "LayerType": "MatrixMultiply",
         "Inputs": [{"Name": "a", "Dimensions": [1, 16], "Format": "LINEAR", "DataType": "FP16"}],
         "Outputs": [{"Name": "b", "Dimensions": [1, 16], "Format": "LINEAR", "Datatype": "FP32"}],
         "TacticName": "sm87_gemm"},
    ],
    "I/O Tensors": [{"Name": "a"}, {"Name": "b"}],
}  # fmt: skip


def test_layers_of_version_10_are_read():
    reformat, convolution, generated = read_plan_layers(json.dumps(TEN))
    assert (reformat.kind, reformat.reads, reformat.writes) == ("Reformat", ("fp16",), ("fp16",))
    assert convolution == PlanLayer(
        name="conv + relu",
        kind="CaskConvolution",
        nodes=("/stem/Conv", "/stem/Relu"),
        reads=("int8",),
        writes=("fp16",),
        tactic="sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32",
    )
    assert (generated.precision, generated.writes, generated.tactic) == ("fp32", (), "")


def test_layers_of_version_11_are_read():
    (layer,) = read_plan_layers(json.dumps(ELEVEN))
    assert (layer.reads, layer.writes, layer.tactic) == (("fp16",), ("fp32",), "sm87_gemm")


def test_layers_without_details_are_names():
    (layer,) = read_plan_layers('{"Layers": ["conv + relu"], "Bindings": []}')
    assert layer == PlanLayer("conv + relu")
    assert layer.precision == "unknown"


def test_types_that_are_not_known_are_kept():
    text = '{"Layers": [{"Name": "a", "Inputs": [{"Datatype": "BF16"}, {"Name": "b"}]}]}'
    assert read_plan_layers(text)[0].reads == ("BF16", "unknown")


def test_precisions_are_counted():
    layers = read_plan_layers(json.dumps({"Layers": [*TEN["Layers"], *ELEVEN["Layers"]]}))
    assert count_precisions(layers) == {"fp16": 2, "int8": 1, "fp32": 1}


@pytest.mark.parametrize(
    "text",
    ["", "rubbish", "[]", "null", "{}", '{"Layers": 3}', '{"Layers": [3]}', '{"Layers": [{}]}',
     '{"Layers": [{"Name": "a", "Inputs": [7]}]}', '{"Layers": [{"Name": "a", "Outputs": 7}]}'],
)  # fmt: skip
def test_what_is_no_list_of_layers_is_refused(text):
    with pytest.raises(BuildError, match="inspector lists no layers"):
        read_plan_layers(text)


def test_the_builder_needs_neither_torch_nor_onnx(run_python):
    code = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "onnx", "onnxruntime", "openvino", "tensorrt"):
            raise ModuleNotFoundError(f"blocked: {name}", name=name)

sys.meta_path.insert(0, Blocker())
from irstd.compile.builders.tensorrt import PlanSettings, build_plan
from irstd.errors import MissingDependency
try:
    build_plan(b"", PlanSettings())
except MissingDependency as error:
    print(error)
"""
    assert "TensorRT is " in run_python(code)
