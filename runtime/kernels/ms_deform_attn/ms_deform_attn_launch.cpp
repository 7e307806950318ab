// The launches of deformable attention, for Python.
#include "ms_deform_attn_launch.hpp"

namespace ms = irstd::ms_deform_attn;

// Python mirrors Plan: ms_deform_attn/cuda.py.
static_assert(sizeof(ms::PadGeometry) == 21 * 4 && sizeof(ms::Geometry) == 34 * 4);
static_assert(sizeof(ms::Plan) == 80 + 2 * sizeof(irstd::Launch) + (21 + 34) * 4 + 4 + 8);

// number: 0 half, 1 float32, 2 u8 values with everything else in half. Fills the plan and returns
// null, or returns what the kernels cannot do.
IRSTD_EXPORT const char* irstd_ms_deform_attn_plan(const irstd_ms_deform_attn_shape* shape,
                                                   int number, int has_reference_points,
                                                   ms::Plan* plan) {
    const auto kind = static_cast<ms::Number>(number);
    const char* refused = ms::refuse(*shape, kind);
    if (!refused) *plan = ms::plan(*shape, kind, has_reference_points);
    return refused;
}
