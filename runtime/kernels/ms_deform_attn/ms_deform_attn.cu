// Deformable attention on a GPU, two kernels.
//
// Memory plan. `pad` copies the values once, head by head, with a border of zeros around every level.
// The gather reads offsets and logits once and writes the result once; its taps, 16 bytes a lane, come
// from L1 and L2, where queries that are neighbours in the image find each other's. With three levels
// of four points, 8 heads of 32 channels in half, the taps of a query are 24 KB: L1 gives them in 192
// cycles, in which a multiprocessor issues 768 instructions. With fewer than that a query waits for L1.
#include <cuda_fp16.h>

#include "ms_deform_attn_device.hpp"
#include "ms_deform_attn_pad.hpp"

namespace ms = irstd::ms_deform_attn;

// value (N, S, M, D) of 16-byte parts: f16 and f32, D >= 8.
extern "C" __global__ void irstd_ms_deform_attn_pad(const uint4* value, uint4* records,
                                                    const __grid_constant__ ms::PadGeometry geometry) {
    ms::pad<ms::Single>(value, uint4{}, records, geometry);
}

// value (N, S, M, D) u8 of 8-byte parts, D >= 8; zero (M), whole numbers from 0 to 255.
extern "C" __global__ void irstd_ms_deform_attn_pad_u8(
    const uint2* value, const float* zero, uint4* records,
    const __grid_constant__ ms::PadGeometry geometry) {
    const unsigned border = ms::border_of(zero) * 0x01010101u;
    ms::pad<ms::Pair>(value, uint2{border, border}, records, geometry);
}

extern "C" __global__ void irstd_ms_deform_attn_pad_f16_d1(
    const __half* value, ms::Quad<__half>* records, const __grid_constant__ ms::PadGeometry geometry) {
    ms::pad<ms::Quad<__half>>(value, __float2half_rn(0.0f), records, geometry);
}

extern "C" __global__ void irstd_ms_deform_attn_pad_f32_d1(
    const float* value, ms::Quad<float>* records, const __grid_constant__ ms::PadGeometry geometry) {
    ms::pad<ms::Quad<float>>(value, 0.0f, records, geometry);
}

extern "C" __global__ void irstd_ms_deform_attn_pad_u8_d1(
    const unsigned char* value, const float* zero, ms::Quad<unsigned char>* records,
    const __grid_constant__ ms::PadGeometry geometry) {
    ms::pad<ms::Quad<unsigned char>>(value, ms::border_of(zero), records, geometry);
}

// offsets (N, Lq, M, L, P, 2) px, logits (N, Lq, M, L, P), reference_points (N, Lq, 2) or null for a
// dense grid, out (N, Lq, M * D), all 16-byte aligned; u8 values are scale[head] * (q - zero[head]).
// Of four points on two to four levels, then of any number.
#define ARGUMENTS(One, Two)                                                                   \
    const Two *offsets, const One *logits, const float2 *reference_points, One *out,          \
        const __grid_constant__ ms::Geometry geometry
#define GATHER_BOUNDS(KIND, D, L) \
    __launch_bounds__(ms::BLOCK_THREADS, ms::blocks_per_multiprocessor(ms::Number::KIND, D, L))

#define GATHER(KIND, kind, One, Two, D, L)                                                    \
    extern "C" __global__ void GATHER_BOUNDS(KIND, D, L)                                      \
        irstd_ms_deform_attn_##kind##_d##D##_l##L##_p4(const char* records, ARGUMENTS(One, Two)) { \
        ms::gather<ms::Number::KIND, D, L, 4>(records, offsets, logits, reference_points,     \
                                              nullptr, nullptr, out, geometry);               \
    }
#define GATHER_U8(D, L)                                                                       \
    extern "C" __global__ void GATHER_BOUNDS(U8, D, L) irstd_ms_deform_attn_u8_d##D##_l##L##_p4( \
        const char* records, const float* scale, const float* zero, ARGUMENTS(__half, __half2)) { \
        ms::gather<ms::Number::U8, D, L, 4>(records, offsets, logits, reference_points, scale, \
                                            zero, out, geometry);                             \
    }
#define GATHER_ANY(KIND, kind, One, Two, D)                                                   \
    extern "C" __global__ void __launch_bounds__(ms::BLOCK_THREADS)                           \
        irstd_ms_deform_attn_##kind##_d##D(const char* records, ARGUMENTS(One, Two)) {        \
        ms::gather_any<ms::Number::KIND, D>(records, offsets, logits, reference_points,       \
                                            nullptr, nullptr, out, geometry);                 \
    }
#define GATHER_ANY_U8(D)                                                                      \
    extern "C" __global__ void __launch_bounds__(ms::BLOCK_THREADS) irstd_ms_deform_attn_u8_d##D( \
        const char* records, const float* scale, const float* zero, ARGUMENTS(__half, __half2)) { \
        ms::gather_any<ms::Number::U8, D>(records, offsets, logits, reference_points, scale,  \
                                          zero, out, geometry);                               \
    }

#define FOR_LEVELS(D, L)                     \
    GATHER(F16, f16, __half, __half2, D, L)  \
    GATHER(F32, f32, float, float2, D, L)    \
    GATHER_U8(D, L)
#define FOR_CHANNELS(D)                                                          \
    FOR_LEVELS(D, 2) FOR_LEVELS(D, 3) FOR_LEVELS(D, 4)                           \
    GATHER_ANY(F16, f16, __half, __half2, D) GATHER_ANY(F32, f32, float, float2, D) \
    GATHER_ANY_U8(D)

FOR_CHANNELS(1)
FOR_CHANNELS(8)
FOR_CHANNELS(16)
FOR_CHANNELS(32)
