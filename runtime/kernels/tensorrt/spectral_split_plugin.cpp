// SpectralSplit(x (N, C, H, W), cutoff (C), gate_weight (2, 2, 7, 7), gate_bias (2), gamma (2, C))
// -> (N, C, H, W) for TensorRT. The workspace holds the low band.
#include "../spectral_split/spectral_split_launch.hpp"
#include "operator.hpp"

namespace irstd::tensorrt {
namespace {

namespace split = irstd::spectral_split;

enum Input { X, CUTOFF, GATE_WEIGHT, GATE_BIAS, GAMMA, INPUTS };
constexpr unsigned FLOAT32_INPUTS = 1u << CUTOFF | 1u << GATE_WEIGHT | 1u << GATE_BIAS | 1u << GAMMA;

const char* refuse(const Attributes&, const Shapes& shapes) {
    const nvinfer1::Dims& x = shapes.inputs[X];
    if (x.nbDims != 4 || is_empty(x)) return "x is not (N, C, H, W), all at least 1";
    if (!split::is_side(size(x, 2)) || !split::is_side(size(x, 3)))
        return "a side of x is no power of two from 32 to 512 px";
    if (size(x, 0) > MOST_IMAGES) return "x has more than 65535 images";
    const int channels = size(x, 1);
    if (!is_shape(shapes.inputs[CUTOFF], {channels})) return "cutoff is not (C)";
    if (!is_shape(shapes.inputs[GATE_WEIGHT], {2, 2, 7, 7})) return "gate_weight is not (2, 2, 7, 7)";
    if (!is_shape(shapes.inputs[GATE_BIAS], {2})) return "gate_bias is not (2)";
    if (!is_shape(shapes.inputs[GAMMA], {2, channels})) return "gamma is not (2, C)";
    return nullptr;
}

size_t workspace_bytes(const Attributes&, const Shapes& shapes, bool half) {
    size_t bytes = half ? 2 : 4;
    for (int axis = 0; axis < 4; ++axis) bytes *= static_cast<size_t>(shapes.inputs[X].d[axis]);
    return bytes;
}

bool enqueue(const Call& call) {
    const nvinfer1::Dims& x_dims = call.shapes.inputs[X];
    const int images = size(x_dims, 0), channels = size(x_dims, 1);
    const int height = size(x_dims, 2), width = size(x_dims, 3);
    const int multiprocessors = count_multiprocessors();
    const split::Plan plan =
        call.half ? split::plan<2>(images, channels, height, width, multiprocessors)
                  : split::plan<4>(images, channels, height, width, multiprocessors);
    const auto named = [&](const char* half, const char* full) { return call.half ? half : full; };
    const void *x = call.inputs[X], *cutoff = call.inputs[CUTOFF];
    void* const low = call.workspace;
    const bool has_low =
        plan.is_whole
            ? launch(named("irstd_spectral_split_whole_f16", "irstd_spectral_split_whole_f32"),
                     plan.whole, call.stream, x, cutoff, channels, height, width, low)
            : launch(named("irstd_spectral_split_rows_f16", "irstd_spectral_split_rows_f32"),
                     plan.rows, call.stream, x, height, width, low) &&
                  launch(named("irstd_spectral_split_columns_f16",
                               "irstd_spectral_split_columns_f32"),
                         plan.columns, call.stream, low, cutoff, channels, height, width, low) &&
                  launch(named("irstd_spectral_split_rows_back_f16",
                               "irstd_spectral_split_rows_back_f32"),
                         plan.rows_back, call.stream, x, low, height, width, low);
    return has_low &&
           launch(named("irstd_spectral_split_gate_f16", "irstd_spectral_split_gate_f32"),
                  plan.gate.launch, call.stream, x, low, call.inputs[GATE_WEIGHT],
                  call.inputs[GATE_BIAS], call.inputs[GAMMA], channels, height, width,
                  plan.gate.segment_rows, call.output);
}

}  // namespace

const Operator OPERATOR = {
    "SpectralSplit", {},     INPUTS,            INPUTS,          FLOAT32_INPUTS,
    any_attributes,  refuse, same_as_the_first, workspace_bytes, enqueue,
};

}  // namespace irstd::tensorrt
