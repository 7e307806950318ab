// Multi-scale deformable attention on a CPU: what Python and the OpenVINO extension call.
#pragma once

#include <cstdint>

#include "ms_deform_attn_shape.hpp"

namespace irstd::ms_deform_attn {

// What the CPU form takes: positions are whole numbers in float32, addresses in a map 32 bits, and a
// border makes a level at most three times as large.
constexpr int64_t MOST_OF_LEVEL = 1 << 24;  // pixels, a border around them included
constexpr int64_t MOST_OF_HEAD = 1 << 28;   // numbers

}  // namespace irstd::ms_deform_attn

// The core: value (N, S, M, D), offsets (N, Lq, M, L, P, 2), logits (N, Lq, M, L, P) and, if not
// null, reference_points (N, Lq, 2), all float32, to out (N, Lq, M * D). Computes the items
// [begin, end) of N * M * Lq, in this order: the head outside, because the values of a head are
// repacked where a range enters it. Returns a Status (status.hpp): NOT_FINITE if an input that the
// range reads is not.
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

// A linear layer: scale * (activations * weights) + shift, with scale and shift of the columns.
// `panels` is [columns / 16][depth][16] float32; for u8 activations [columns / 16][depth /
// 4][16][4] int8, -64 to 64; for 16-bit activations [columns / 16][depth / 2][16][2] int16. In
// panels, scale and shift the columns are padded to whole panels, and depth to what lies together.
struct irstd_ms_deform_attn_linear {
    const void* panels;
    const float *scale, *shift;
    int32_t depth, columns;
};

// The module: the core between four linear layers. Float32 throughout, or integer products and
// values in u8: then query and source are quantized to u8 with a scale and a zero, the value
// layer's result is u8, the core's is 16-bit numbers, and the output layer's scale and shift
// account for both.
struct irstd_ms_deform_attn_module {
    irstd_ms_deform_attn_shape shape;
    int32_t channels;  // C, of query and source
    int32_t results;   // E
    int32_t is_integer;
    float query_scale, query_zero, source_scale, source_zero;  // of integers only
    irstd_ms_deform_attn_linear value;
    irstd_ms_deform_attn_linear points;  // offsets, then logits
    irstd_ms_deform_attn_linear output;
    const float *query, *source, *reference_points;
    const float* value_zero;  // of the heads, of integers only
    void* values;             // N * S * M * D numbers or bytes
    void* maps;               // N * M * irstd_ms_deform_attn_map_bytes
    float* out;               // (N, Lq, E)
};

// Memory of the map of a head.
IRSTD_EXPORT int64_t irstd_ms_deform_attn_map_bytes(const irstd_ms_deform_attn_shape* shape,
                                                    int is_bytes);

// The three steps of the module, each to be finished before the next: source to values, of the rows
// [begin, end) of N * S; values to maps, of N * M; query to out, of N * Lq. They return a Status:
// NOT_FINITE if an input is not.
IRSTD_EXPORT int irstd_ms_deform_attn_module_values(const irstd_ms_deform_attn_module* module,
                                                    int64_t begin, int64_t end);
IRSTD_EXPORT int irstd_ms_deform_attn_module_maps(const irstd_ms_deform_attn_module* module,
                                                  int64_t begin, int64_t end);
IRSTD_EXPORT int irstd_ms_deform_attn_module_queries(const irstd_ms_deform_attn_module* module,
                                                     int64_t begin, int64_t end);
