// Multi-scale deformable attention on a CPU: what Python and the OpenVINO extension call.
#pragma once

#include <cstdint>

#include "ms_deform_attn_shape.hpp"

// The core: value (N, S, M, D), offsets (N, Lq, M, L, P, 2), logits (N, Lq, M, L, P) and, if not
// null, reference_points (N, Lq, 2), all float32, to out (N, Lq, M * D). Computes the items
// [begin, end) of N * M * Lq, in this order: the head outside, because the values of a head are
// repacked where a range enters it. Returns 0, or 1 if an input that the range reads is not finite.
IRSTD_EXPORT int irstd_ms_deform_attn_f32(const irstd_ms_deform_attn_shape* shape,
                                          const float* value, const float* offsets,
                                          const float* logits, const float* reference_points,
                                          float* out, int64_t begin, int64_t end);

// The same with values scale[head] * (value - zero[head]), zero a whole number from 0 to 255.
// Bilinear weights are rounded to 1/255 px.
IRSTD_EXPORT int irstd_ms_deform_attn_u8(const irstd_ms_deform_attn_shape* shape,
                                         const uint8_t* value, const float* scale,
                                         const float* zero, const float* offsets,
                                         const float* logits, const float* reference_points,
                                         float* out, int64_t begin, int64_t end);
