// HaarGate(x (N, C, H, W), weight (4, 2, 7, 7), bias (4)) -> (N, C, H, W) for TensorRT.
#include "../haar_gate/haar_gate_launch.hpp"
#include "operator.hpp"

namespace irstd::tensorrt {
namespace {

constexpr unsigned WEIGHT_AND_BIAS = 0b110;

const char* refuse(const Attributes&, const Shapes& shapes) {
    const nvinfer1::Dims& x = shapes.inputs[0];
    if (x.nbDims != 4 || is_empty(x)) return "x is not (N, C, H, W), all at least 1";
    if (size(x, 0) > MOST_IMAGES) return "x has more than 65535 images";
    if (!is_shape(shapes.inputs[1], {haar_gate::BANDS, haar_gate::POOLS, haar_gate::KERNEL_PX,
                                     haar_gate::KERNEL_PX}))
        return "weight is not (4, 2, 7, 7)";
    if (!is_shape(shapes.inputs[2], {haar_gate::BANDS})) return "bias is not (4)";
    return nullptr;
}

bool enqueue(const Call& call) {
    const nvinfer1::Dims& x = call.shapes.inputs[0];
    const int images = size(x, 0), channels = size(x, 1), height = size(x, 2), width = size(x, 3);
    const int multiprocessors = count_multiprocessors();
    const haar_gate::Plan plan =
        call.half ? haar_gate::plan<2>(images, height, width, multiprocessors)
                  : haar_gate::plan<4>(images, height, width, multiprocessors);
    return launch(call.half ? "irstd_haar_gate_f16" : "irstd_haar_gate_f32", plan.launch,
                  call.stream, call.inputs[0], call.inputs[1], call.inputs[2], channels, height,
                  width, plan.segment_rows, call.output);
}

}  // namespace

const Operator OPERATOR = {
    "HaarGate",        {}, 3,       3, WEIGHT_AND_BIAS, any_attributes, refuse,
    same_as_the_first, no_workspace, enqueue,
};

}  // namespace irstd::tensorrt
