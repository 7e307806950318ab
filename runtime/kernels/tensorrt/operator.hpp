// What an operator tells TensorRT about itself. plugin.cpp makes the plugin and its creator of it;
// each library holds one operator.
#pragma once

#include <NvInferRuntime.h>

#include "module.hpp"

namespace irstd::tensorrt {

constexpr int MOST_ATTRIBUTES = 2;
constexpr int MOST_VALUES = 8;  // height and width of four levels
constexpr int MOST_INPUTS = 5;
constexpr int MOST_IMAGES = 65535;  // of a launch

// An attribute of the ONNX node: a list of whole numbers. It may be absent where empty is allowed.
struct Attribute {
    int32_t values[MOST_VALUES];
    int32_t count;
};

struct Attributes {
    Attribute list[MOST_ATTRIBUTES];
};

struct Shapes {
    nvinfer1::Dims inputs[MOST_INPUTS];
    int count;
};

struct Call {
    const Attributes& attributes;
    const Shapes& shapes;
    bool half;  // else float32
    const void* const* inputs;
    void* output;
    void* workspace;
    CUstream stream;
};

struct Operator {
    const char* name;                         // op_type of the ONNX node
    const char* attributes[MOST_ATTRIBUTES];  // their names, null where there are fewer
    int fewest_inputs, most_inputs;
    unsigned float32_inputs;  // bit i: input i is float32 also where the others are half
    // What is wrong with the attributes, or with the shapes, or null. The attributes are asked about
    // first, when there are no shapes yet.
    const char* (*refuse_attributes)(const Attributes&);
    const char* (*refuse_shapes)(const Attributes&, const Shapes&);
    nvinfer1::DimsExprs (*output)(const nvinfer1::DimsExprs* inputs, nvinfer1::IExprBuilder&);
    size_t (*workspace_bytes)(const Attributes&, const Shapes&, bool half);
    // Put the kernels into the stream; whether all could be.
    bool (*enqueue)(const Call&);
};

// Of this library; its file <op>_plugin.cpp defines it.
extern const Operator OPERATOR;

// To TensorRT's logger, or to standard error where there is none.
void log_error(const char* said, const char* more = "");

// What operators have in common.
inline const char* any_attributes(const Attributes&) { return nullptr; }
inline size_t no_workspace(const Attributes&, const Shapes&, bool) { return 0; }
inline nvinfer1::DimsExprs same_as_the_first(const nvinfer1::DimsExprs* inputs,
                                             nvinfer1::IExprBuilder&) {
    return inputs[0];
}

inline int size(const nvinfer1::Dims& dims, int axis) { return static_cast<int>(dims.d[axis]); }

inline bool is_empty(const nvinfer1::Dims& dims) {
    for (int axis = 0; axis < dims.nbDims; ++axis)
        if (dims.d[axis] < 1) return true;
    return false;
}

// Whether the sizes are these; -1 stands for any.
template <int Axes>
bool is_shape(const nvinfer1::Dims& dims, const int (&wanted)[Axes]) {
    if (dims.nbDims != Axes) return false;
    for (int axis = 0; axis < Axes; ++axis)
        if (wanted[axis] >= 0 && dims.d[axis] != wanted[axis]) return false;
    return true;
}

}  // namespace irstd::tensorrt
