// What the kernels that walk along strips share on the device (strips.hpp).
#pragma once

#include <cuda_fp16.h>

#include "strips.hpp"

namespace irstd::strips {

constexpr unsigned ALL_LANES = 0xffffffffu;
constexpr int PACKS = 4;                   // registers of a vector
constexpr float LEAST = -3.402823466e38f;  // of half, minus infinity

// Pixels of a row that fill one register and are added and compared together: a float or two
// halves.
template <class T>
struct PackOf;
template <>
struct PackOf<float> {
    using Type = float;
};
template <>
struct PackOf<__half> {
    using Type = __half2;
};
template <class T>
using Pack = typename PackOf<T>::Type;

__device__ __forceinline__ float larger(float a, float b) { return fmaxf(a, b); }
__device__ __forceinline__ __half2 larger(__half2 a, __half2 b) { return __hmax2(a, b); }

// Pixels from and to float32.
__device__ __forceinline__ void unpack(float pack, float* pixels) { pixels[0] = pack; }
__device__ __forceinline__ void unpack(__half2 pack, float* pixels) {
    const float2 both = __half22float2(pack);
    pixels[0] = both.x, pixels[1] = both.y;
}
__device__ __forceinline__ void pack_up(const float* pixels, float& pack) { pack = pixels[0]; }
__device__ __forceinline__ void pack_up(const float* pixels, __half2& pack) {
    pack = __floats2half2_rn(pixels[0], pixels[1]);
}

template <class To, class From>
__device__ __forceinline__ To bits_of(From from) {
    static_assert(sizeof(To) == sizeof(From), "");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

template <class Value>
__device__ __forceinline__ void load_vector(const void* from, Value* packs) {
    const uint4 vector = *static_cast<const uint4*>(from);
    packs[0] = bits_of<Value>(vector.x), packs[1] = bits_of<Value>(vector.y);
    packs[2] = bits_of<Value>(vector.z), packs[3] = bits_of<Value>(vector.w);
}

template <class Value>
__device__ __forceinline__ uint4 vector_of(const Value* packs) {
    return {bits_of<unsigned>(packs[0]), bits_of<unsigned>(packs[1]), bits_of<unsigned>(packs[2]),
            bits_of<unsigned>(packs[3])};
}

// For results that nobody reads soon.
template <class Value>
__device__ __forceinline__ void stream_vector(const Value* packs, void* to) {
    __stcs(static_cast<uint4*>(to), vector_of(packs));
}

struct Maximum {
    template <class Value>
    __device__ __forceinline__ Value operator()(Value a, Value b) const {
        return larger(a, b);
    }
};

struct Sum {
    __device__ __forceinline__ float operator()(float a, float b) const { return a + b; }
};

// Share out over two lanes what both hold a part of: one keeps the first half of the values, the
// other the second, each combined with its partner's.
template <int Count, class Value, class Combine>
__device__ __forceinline__ void halve(Value* values, int lanes_apart, bool is_second,
                                      Combine combine) {
#pragma unroll
    for (int i = 0; i < Count / 2; ++i) {
        Value keep = values[i], give = values[i + Count / 2];
        if (is_second) keep = values[i + Count / 2], give = values[i];
        values[i] = combine(keep, __shfl_xor_sync(ALL_LANES, give, lanes_apart));
    }
}

// Combine the groups of channels of a warp. Lanes 4 apart are left with the same part of the
// `Count` values, a quarter: the one of number group / 2.
template <int Count, class Value, class Combine>
__device__ __forceinline__ void reduce_groups(Value* values, int group, Combine combine) {
    halve<Count>(values, 16, group & 4, combine);
    halve<Count / 2>(values, 8, group & 2, combine);
#pragma unroll
    for (int i = 0; i < Count / 4; ++i)
        values[i] = combine(values[i], __shfl_xor_sync(ALL_LANES, values[i], 4));
}

// Which vector of a step a lane pools, and which of the groups of channels.
struct Share {
    int row, vector, group;
};
__device__ __forceinline__ Share share() {
    const int lane = threadIdx.x % 32;
    const int item = threadIdx.x / 32 * WARP_VECTORS + lane % WARP_VECTORS;
    return {item / ROW_VECTORS, item % ROW_VECTORS, lane / WARP_VECTORS};
}

// Where a block walks. Even segments are walked downwards and odd ones upwards, so that neighbours
// are at the rows that both need at the same time, and one of them finds these in the cache.
struct Walk {
    int first_row, last_row;  // of the segment; the last one is not in it

    __device__ Walk(int height, int segment_rows)
        : first_row(blockIdx.y * segment_rows), last_row(min(first_row + segment_rows, height)) {}

    __device__ bool is_upwards() const { return blockIdx.y % 2; }
    __device__ int steps() const {
        return (last_row - first_row + STEP_ROWS - 1) / STEP_ROWS + RING_STEPS - 1;
    }
    __device__ int step(int i) const { return is_upwards() ? steps() - 1 - i : i; }
    // The first row that a step pools, and its place in the ring.
    __device__ int pooled_row(int step) const {
        return first_row - REACH_PX - LEAD_ROWS + step * STEP_ROWS;
    }
    __device__ static int ring_row(int step) { return step % RING_STEPS * STEP_ROWS; }
    // Of the three steps in the ring the topmost, and the first row that can be gated then.
    __device__ int top_step(int step) const { return is_upwards() ? step : step - RING_STEPS + 1; }
    __device__ int gated_row(int top) const { return pooled_row(top) + LEAD_ROWS + REACH_PX; }
};

template <int Count>
__device__ __forceinline__ void copy_vectors(const float* from, float* to) {
#pragma unroll
    for (int i = 0; i < Count; ++i) {
        const float4 four = reinterpret_cast<const float4*>(from)[i];
        to[4 * i] = four.x, to[4 * i + 1] = four.y, to[4 * i + 2] = four.z, to[4 * i + 3] = four.w;
    }
}

template <class Shared, int Bands>
__device__ __forceinline__ void copy_weights(const float* weight, float* shared) {
    constexpr int BAND = POOLS * KERNEL_PX * KERNEL_PX;
    for (int i = threadIdx.x; i < Bands * BAND; i += THREADS)
        shared[Shared::WEIGHTS + i / BAND * Shared::BAND_WEIGHTS +
               i % BAND / KERNEL_PX * Shared::WEIGHT_ROW + i % KERNEL_PX] = weight[i];
}

// Four neighbouring pixels, which a lane gates for one band. Neighbouring lanes take the bands of
// the same pixels.
constexpr int QUAD_PX = 4;

template <class Shared, int Bands>
struct Quad {
    static constexpr int QUADS = Shared::STRIP_PX / QUAD_PX;
    static constexpr int LANES = STEP_ROWS * QUADS * Bands;
    static_assert(LANES <= THREADS && LANES % 32 == 0,
                  "whole warps have something to do or nothing");

    int band = threadIdx.x % Bands;
    int px = threadIdx.x / Bands % QUADS * QUAD_PX;
    int row = threadIdx.x / Bands / QUADS;

    __device__ Quad() {}

    // The sigmoids of 7x7 taps over the pooled maps of the band.
    __device__ __forceinline__ void gate(const float* shared, int top_step, const float* bias,
                                         float (&gates)[QUAD_PX]) const {
        const float* weights = shared + Shared::WEIGHTS + band * Shared::BAND_WEIGHTS;
#pragma unroll
        for (float& gate : gates) gate = bias[band];
        for (int pool = 0; pool < POOLS; ++pool) {
            // One pixel left of what the taps reach, so that loads are 16 bytes.
            const float* map =
                shared + (band * POOLS + pool) * Shared::PLANE + Shared::VECTOR_PX - QUAD_PX + px;
#pragma unroll
            for (int dy = 0; dy < KERNEL_PX; ++dy) {
                const int at = Walk::ring_row(top_step) + LEAD_ROWS + row + dy;
                float reached[3 * QUAD_PX], taps[2 * QUAD_PX];
                copy_vectors<3>(map + (at < RING_ROWS ? at : at - RING_ROWS) * Shared::ROW_PX,
                                reached);
                copy_vectors<2>(weights, taps);
                weights += Shared::WEIGHT_ROW;
#pragma unroll
                for (int dx = 0; dx < KERNEL_PX; ++dx)
#pragma unroll
                    for (int k = 0; k < QUAD_PX; ++k) gates[k] += taps[dx] * reached[k + dx + 1];
            }
        }
#pragma unroll
        for (float& gate : gates) gate = __fdividef(1.0f, 1.0f + __expf(-gate));
    }
};

}  // namespace irstd::strips
