// Values (N, S, M, D) into the records of ms_deform_attn_geometry.hpp on a GPU.
#pragma once

#include "ms_deform_attn_geometry.hpp"

namespace irstd::ms_deform_attn {

// f16 and f32, D >= 8.
struct Single {
    template <class At>
    static __device__ __forceinline__ uint4 make(const At& at) {
        return at(0, 0);
    }
};

// u8, D >= 8: eight channels of two neighbours, alternating.
struct Pair {
    template <class At>
    static __device__ __forceinline__ uint4 make(const At& at) {
        const uint2 here = at(0, 0), right = at(1, 0);
        return {__byte_perm(here.x, right.x, 0x5140), __byte_perm(here.x, right.x, 0x7362),
                __byte_perm(here.y, right.y, 0x5140), __byte_perm(here.y, right.y, 0x7362)};
    }
};

// D = 1.
template <class Part>
struct alignas(4 * sizeof(Part)) Quad {
    Part here, right, below, below_right;

    template <class At>
    static __device__ __forceinline__ Quad make(const At& at) {
        return {at(0, 0), at(1, 0), at(0, 1), at(1, 1)};
    }
};

// One thread writes one part of a record, of blockDim.x parts; blockDim.y records are a block, heads
// and images are along the grid's y and z. `Record` makes the part from those of the values, at(dx, dy)
// to the right and below. Reads are contiguous over a record, writes over all of them.
template <class Record, class Part, class Joined>
__device__ __forceinline__ void pad(const Part* __restrict__ value, Part border,
                                    Joined* __restrict__ records, const PadGeometry& geometry) {
    const int head = blockIdx.y, image = blockIdx.z, parts = blockDim.x, part = threadIdx.x;
    const int record = blockIdx.x * blockDim.y + threadIdx.y;
    const bool is_last = head == geometry.heads - 1 && image == static_cast<int>(gridDim.z) - 1;
    if (record >= geometry.records + (is_last ? geometry.tail : 0)) return;

    auto level = geometry.level[0];
#pragma unroll
    for (int l = 1; l < MAX_LEVELS; ++l)
        if (l < geometry.levels && record >= geometry.level[l].first_record)
            level = geometry.level[l];
    const int stride = level.width + 1, place = record - level.first_record;
    const int x = place % stride - 1, y = place / stride - 1;
    const auto at = [&](int dx, int dy) {
        const bool is_inside = static_cast<unsigned>(x + dx) < static_cast<unsigned>(level.width) &&
                               static_cast<unsigned>(y + dy) < static_cast<unsigned>(level.height);
        const size_t position = static_cast<size_t>(image) * geometry.values + level.first_value +
                                (y + dy) * level.width + (x + dx);
        return is_inside ? value[(position * geometry.heads + head) * parts + part] : border;
    };
    const size_t map = static_cast<size_t>(image * geometry.heads + head) * geometry.records;
    records[(map + record) * parts + part] = Record::make(at);
}

__device__ __forceinline__ unsigned char border_of(const float* zero) {
    return static_cast<unsigned char>(zero[blockIdx.y]);
}

}  // namespace irstd::ms_deform_attn
