// MSDeformAttn(value (N, S, M, D), offsets (N, Lq, M, L, P, 2), logits (N, Lq, M, L, P)
// [, reference_points (N, Lq, 2)]) -> (N, Lq, M * D) for TensorRT. Reference points are float32 in
// both precisions: half has no place for a coordinate.
#include "../ms_deform_attn/ms_deform_attn_launch.hpp"
#include "operator.hpp"

namespace irstd::tensorrt {
namespace {

namespace ms = irstd::ms_deform_attn;

enum Input { VALUE, OFFSETS, LOGITS, REFERENCE_POINTS };
constexpr unsigned FLOAT32_INPUTS = 1u << REFERENCE_POINTS;

const Attribute& level_hw(const Attributes& attributes) { return attributes.list[0]; }
const Attribute& query_hw(const Attributes& attributes) { return attributes.list[1]; }
bool has_reference_points(const Shapes& shapes) { return shapes.count > REFERENCE_POINTS; }
ms::Number number_of(bool half) { return half ? ms::Number::F16 : ms::Number::F32; }

const char* refuse_attributes(const Attributes& attributes) {
    const Attribute &levels = level_hw(attributes), &queries = query_hw(attributes);
    if (levels.count < 2 || levels.count % 2) return "level_hw is not H0, W0 to H3, W3";
    if (queries.count != 0 && queries.count != 2) return "query_hw is neither Hq, Wq nor empty";
    for (int i = 0; i < levels.count; ++i)
        if (levels.values[i] < 1) return "level_hw has a side below 1";
    for (int i = 0; i < queries.count; ++i)
        if (queries.values[i] < 1) return "query_hw has a side below 1";
    return nullptr;
}

// Of inputs that have the right number of axes.
ms::Shape shape_of(const Attributes& attributes, const Shapes& shapes) {
    const nvinfer1::Dims &value = shapes.inputs[VALUE], &offsets = shapes.inputs[OFFSETS];
    const Attribute &levels = level_hw(attributes), &queries = query_hw(attributes);
    ms::Shape shape{};
    shape.images = size(value, 0);
    shape.queries = size(offsets, 1);
    shape.heads = size(value, 2);
    shape.d_head = size(value, 3);
    shape.levels = levels.count / 2;
    shape.points = size(offsets, 4);
    for (int i = 0; i < queries.count; ++i) shape.query_hw[i] = queries.values[i];
    for (int i = 0; i < levels.count; ++i) shape.level_hw[i] = levels.values[i];
    return shape;
}

const char* refuse_shapes(const Attributes& attributes, const Shapes& shapes) {
    const nvinfer1::Dims &value = shapes.inputs[VALUE], &offsets = shapes.inputs[OFFSETS];
    if (value.nbDims != 4 || is_empty(value)) return "value is not (N, S, M, D), all at least 1";
    if (offsets.nbDims != 6 || is_empty(offsets))
        return "offsets is not (N, Lq, M, L, P, 2), all at least 1";
    const ms::Shape shape = shape_of(attributes, shapes);
    int64_t positions = 0;
    for (int l = 0; l < shape.levels; ++l)
        positions += int64_t{shape.level_hw[2 * l]} * shape.level_hw[2 * l + 1];
    if (size(value, 1) != positions) return "value has not as many positions as level_hw says";
    if (!is_shape(offsets, {shape.images, shape.queries, shape.heads, shape.levels, shape.points, 2}))
        return "offsets is not (N, Lq, M, L, P, 2) of value and level_hw";
    if (!is_shape(shapes.inputs[LOGITS],
                  {shape.images, shape.queries, shape.heads, shape.levels, shape.points}))
        return "logits is not (N, Lq, M, L, P) of offsets";
    const int d = shape.d_head;
    if (d != 1 && d != 8 && d != 16 && d != 32) return "D is not 1, 8, 16 or 32";
    if (shape.points > ms::MAX_POINTS) return "P is more than 8";
    if (has_reference_points(shapes)) {
        if (!is_shape(shapes.inputs[REFERENCE_POINTS], {shape.images, shape.queries, 2}))
            return "reference_points is not (N, Lq, 2)";
    } else if (int64_t{shape.query_hw[0]} * shape.query_hw[1] != shape.queries) {
        return "without reference_points query_hw must be Hq, Wq with Hq * Wq = Lq";
    }
    return ms::refuse(shape, ms::Number::F32);  // the larger of the two
}

nvinfer1::DimsExprs output(const nvinfer1::DimsExprs* inputs, nvinfer1::IExprBuilder& expressions) {
    nvinfer1::DimsExprs dims{};
    dims.nbDims = 3;
    dims.d[0] = inputs[VALUE].d[0];
    dims.d[1] = inputs[OFFSETS].d[1];
    dims.d[2] = expressions.operation(nvinfer1::DimensionOperation::kPROD, *inputs[VALUE].d[2],
                                      *inputs[VALUE].d[3]);
    return dims;
}

ms::Plan plan_of(const Attributes& attributes, const Shapes& shapes, bool half) {
    return ms::plan(shape_of(attributes, shapes), number_of(half), has_reference_points(shapes));
}

size_t workspace_bytes(const Attributes& attributes, const Shapes& shapes, bool half) {
    return plan_of(attributes, shapes, half).records_bytes;
}

bool enqueue(const Call& call) {
    const ms::Plan plan = plan_of(call.attributes, call.shapes, call.half);
    const void* reference_points =
        has_reference_points(call.shapes) ? call.inputs[REFERENCE_POINTS] : nullptr;
    return launch(plan.pad_kernel, plan.pad, call.stream, call.inputs[VALUE], call.workspace,
                  plan.pad_geometry) &&
           launch(plan.gather_kernel, plan.gather, call.stream, call.workspace,
                  call.inputs[OFFSETS], call.inputs[LOGITS], reference_points, call.output,
                  plan.geometry);
}

}  // namespace

const Operator OPERATOR = {
    "MSDeformAttn", {"level_hw", "query_hw"}, REFERENCE_POINTS, REFERENCE_POINTS + 1,
    FLOAT32_INPUTS, refuse_attributes,        refuse_shapes,    output,
    workspace_bytes, enqueue,
};

}  // namespace irstd::tensorrt
