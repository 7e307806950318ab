// The gather of deformable attention on a GPU: softmax, locations and weighted sum in one pass.
#pragma once

#include <cuda_fp16.h>

#include "ms_deform_attn_geometry.hpp"
#include "ms_deform_attn_records.hpp"

namespace irstd::ms_deform_attn {

constexpr unsigned WHOLE_WARP = 0xffffffffu;
constexpr unsigned MINUS_INFINITY = 0xff800000u;

#if defined(__NVCC__) || defined(__CUDACC_RTC__)

// 2^x to 2 ulp; zero where that is below the normal numbers.
__device__ __forceinline__ float power_of_two(float x) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
}

// 1 / x to 1 ulp, for normal numbers.
__device__ __forceinline__ float reciprocal(float x) {
    float inverse;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(x));
    return inverse;
}

// The same address. Hides from the compiler how it came about: it would rather add the parts of it
// again for every load.
__device__ __forceinline__ const char* finished(const char* address) {
    asm("mov.b64 %0, %0;" : "+l"(address));
    return address;
}

#else

__device__ __forceinline__ float power_of_two(float x) { return exp2f(x); }
__device__ __forceinline__ float reciprocal(float x) { return 1.0f / x; }
__device__ __forceinline__ const char* finished(const char* address) { return address; }

#endif

// Numbers that follow each other, in as few loads as their alignment allows.
template <class T, int N>
struct alignas(N % 2 ? sizeof(T) : sizeof(T) * N < 16 ? sizeof(T) * N : 16) Pack {
    T item[N];
};

// A lane's share of the points of a level: N that follow each other; `missing` past the last.
template <int N, int POINTS, int LANES, class T>
__device__ __forceinline__ Pack<T, N> load_share(const T* points, int lane, T missing) {
    Pack<T, N> share;
    if constexpr (N * LANES == POINTS) {
        share = *reinterpret_cast<const Pack<T, N>*>(points + lane * N);
    } else {
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const int point = lane * N + i;
            share.item[i] = point < POINTS ? points[point] : missing;
        }
    }
    return share;
}

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float2 to_float2(float2 x) { return x; }
__device__ __forceinline__ float2 to_float2(__half2 x) { return __half22float2(x); }

// e^(logit - largest), of which no sum overflows.
__device__ __forceinline__ float exponential_below(float largest, float logit) {
    constexpr float LOG2_E = 1.44269504f;
    return power_of_two((logit - largest) * LOG2_E);
}

template <int LEVELS, int SHARE, class Change>
__device__ __forceinline__ void change_all(float (&numbers)[LEVELS][SHARE], Change change) {
#pragma unroll
    for (int l = 0; l < LEVELS; ++l)
#pragma unroll
        for (int i = 0; i < SHARE; ++i) numbers[l][i] = change(numbers[l][i]);
}

// Replace the logits of LANES lanes by their softmax.
template <int LANES, int LEVELS, int SHARE>
__device__ __forceinline__ void softmax(float (&logits)[LEVELS][SHARE]) {
    float largest = logits[0][0], sum = 0.0f;
    change_all(logits, [&](float x) { return largest = fmaxf(largest, x), x; });
#pragma unroll
    for (int apart = 1; apart < LANES; apart *= 2)
        largest = fmaxf(largest, __shfl_xor_sync(WHOLE_WARP, largest, apart));
    change_all(logits, [&](float x) { return x = exponential_below(largest, x), sum += x, x; });
#pragma unroll
    for (int apart = 1; apart < LANES; apart *= 2)
        sum += __shfl_xor_sync(WHOLE_WARP, sum, apart);
    const float inverse = reciprocal(sum);
    change_all(logits, [&](float x) { return x * inverse; });
}

// A point as lanes hand it to each other.
template <int WORDS>
struct Point {
    int record;  // at its upper left tap, in the map of the head
    unsigned weights[WORDS];
};

template <class Channels, class Two>
__device__ __forceinline__ Point<Channels::WORDS> set_up(const Geometry::Level& level,
                                                         float2 reference, Two moved_px,
                                                         float attention) {
    const float2 moved = to_float2(moved_px);
    const float x_px = reference.x * level.scale_x - 0.5f + moved.x;
    const float y_px = reference.y * level.scale_y - 0.5f + moved.y;
    const Corner at = corner(x_px, y_px, level.width, level.height);
    Point<Channels::WORDS> point;
    // Exact: a level has fewer than 2^24 records.
    point.record = level.origin + static_cast<int>(at.y * level.stride + at.x);
    Channels::pack(taps(attention, at.dx, at.dy), point.weights);
    return point;
}

// What a lane works on: blockDim.x / LANES heads by blockDim.y by blockDim.z queries of a grid are a
// block. Lanes outside the grid repeat its last query, so that shuffles have all their lanes.
template <Number KIND, int D>
struct Item {
    using Channels = Sum<KIND, D>;
    using One = typename Channels::One;
    using Two = typename Channels::Two;
    static constexpr int LANES = lanes_per_head(D), RECORD_BYTES = record_bytes(KIND, D);

    int lane, head, image;
    bool is_in_grid;
    unsigned query, item;
    float2 reference;
    const Geometry& geometry;

    __device__ __forceinline__ Item(const float2* reference_points, const Geometry& geometry)
        : lane(threadIdx.x % LANES), head(threadIdx.x / LANES), image(blockIdx.z), geometry(geometry) {
        const int column = blockIdx.x * blockDim.y + threadIdx.y;
        const int row = blockIdx.y * blockDim.z + threadIdx.z;
        is_in_grid = column < geometry.query_width && row < geometry.query_height;
        const int x = min(column, geometry.query_width - 1), y = min(row, geometry.query_height - 1);
        query = (image * geometry.query_height + y) * geometry.query_width + x;
        item = query * geometry.heads + head;
        reference = {x + 0.5f, y + 0.5f};  // in a dense grid its own pixel centre
        if (reference_points) reference = reference_points[query];
    }
    // This lane's part of the first record of the head.
    __device__ __forceinline__ const char* map(const char* records) const {
        const size_t map = static_cast<size_t>(image * geometry.heads + head) * geometry.records;
        return finished(records + map * RECORD_BYTES + lane * 16);
    }
    __device__ __forceinline__ void store(const Channels& sum, const float* scale, const float* zero,
                                          One* out) const {
        if (!is_in_grid) return;
        One* result = out + static_cast<size_t>(item) * D;
        if constexpr (KIND == Number::U8)
            sum.store(result, lane, scale[head], zero[head]);
        else
            sum.store(result, lane);
    }
};

// The lanes of a head share the set-up of its points (softmax, location, weights), then each takes
// every point from the lane that set it up and sums its own channels of it.
//
// Registers: 8 sums and, in half, 4 packed ones; offsets and attention of LEVELS * SHARE points, the
// set-up of SHARE; as many 16-byte loads in flight as there is room for. Nothing goes through shared
// memory.
template <Number KIND, int D, int LEVELS, int POINTS, class One, class Two>
__device__ __forceinline__ void gather(const char* records, const Two* offsets, const One* logits,
                                       const float2* reference_points, const float* scale,
                                       const float* zero, One* out, const Geometry& geometry) {
    using Own = Item<KIND, D>;
    using Channels = typename Own::Channels;
    constexpr int LANES = Own::LANES, SHARE = (POINTS + LANES - 1) / LANES;
    const Own own(reference_points, geometry);
    const size_t first_point = static_cast<size_t>(own.item) * (LEVELS * POINTS);
    Pack<Two, SHARE> moved[LEVELS];
    float attention[LEVELS][SHARE];
#pragma unroll
    for (int l = 0; l < LEVELS; ++l) {
        const size_t first = first_point + l * POINTS;
        moved[l] = load_share<SHARE, POINTS, LANES>(offsets + first, own.lane, Two{});
        const Pack<One, SHARE> share = load_share<SHARE, POINTS, LANES>(
            logits + first, own.lane, static_cast<One>(bits<float>(MINUS_INFINITY)));
#pragma unroll
        for (int i = 0; i < SHARE; ++i) attention[l][i] = to_float(share.item[i]);
    }
    softmax<LANES>(attention);

    const char* const map = own.map(records);
    Channels sum;
#pragma unroll
    for (int l = 0; l < LEVELS; ++l) {
        const Geometry::Level& level = geometry.level[l];
        const char* const below = finished(map + level.row_bytes);
        Point<Channels::WORDS> points[SHARE];
#pragma unroll
        for (int i = 0; i < SHARE; ++i)
            points[i] = set_up<Channels>(level, own.reference, moved[l].item[i], attention[l][i]);
#pragma unroll
        for (int p = 0; p < POINTS; ++p) {
            const Point<Channels::WORDS>& point = points[p % SHARE];
            const int lane = p / SHARE;
            const unsigned record = __shfl_sync(WHOLE_WARP, point.record, lane, LANES);
            unsigned weights[Channels::WORDS];
#pragma unroll
            for (int w = 0; w < Channels::WORDS; ++w)
                weights[w] = __shfl_sync(WHOLE_WARP, point.weights[w], lane, LANES);
            const size_t start = static_cast<size_t>(record) * Own::RECORD_BYTES;
            sum.add(map + start, below + start, weights);
            if (p % 4 == 3 || p == POINTS - 1) sum.promote();
        }
    }
    own.store(sum, scale, zero, out);
}

// The same for any number of levels and points: every lane sets up every point, one after the other.
template <Number KIND, int D, class One, class Two>
__device__ __forceinline__ void gather_any(const char* records, const Two* offsets,
                                           const One* logits, const float2* reference_points,
                                           const float* scale, const float* zero, One* out,
                                           const Geometry& geometry) {
    using Own = Item<KIND, D>;
    using Channels = typename Own::Channels;
    const Own own(reference_points, geometry);
    const int points = geometry.points, count = geometry.levels * points;
    offsets += static_cast<size_t>(own.item) * count;
    logits += static_cast<size_t>(own.item) * count;
    float largest = to_float(logits[0]), all = 0.0f;
    for (int i = 1; i < count; ++i) largest = fmaxf(largest, to_float(logits[i]));
    for (int i = 0; i < count; ++i) all += exponential_below(largest, to_float(logits[i]));
    const float inverse = reciprocal(all);

    const char* const map = own.map(records);
    Channels sum;
    for (int l = 0; l < geometry.levels; ++l) {
        const Geometry::Level& level = geometry.level[l];
        for (int p = 0; p < points; ++p) {
            const float attention = exponential_below(largest, to_float(*logits++)) * inverse;
            const Point<Channels::WORDS> point =
                set_up<Channels>(level, own.reference, *offsets++, attention);
            const char* start = map + static_cast<size_t>(point.record) * Own::RECORD_BYTES;
            sum.add(start, start + level.row_bytes, point.weights);
            if (p % 4 == 3 || p == points - 1) sum.promote();
        }
    }
    own.store(sum, scale, zero, out);
}

// For __launch_bounds__. 0 leaves it to the compiler, which spills where it is told without need.
IRSTD_HD constexpr int blocks_per_multiprocessor(Number number, int d_head, int levels) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
    if (d_head == 32 && levels <= 3) return 5;  // 48 registers; by itself it takes 52
#endif
    if (number == Number::U8 && d_head == 16 && levels == 4) return 4;  // 64; by itself 48 and a spill
    return 0;
}

}  // namespace irstd::ms_deform_attn
