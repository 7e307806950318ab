// Values (N, S, M, D) into the records of ms_deform_attn_geometry.hpp on a GPU.
#pragma once

#include "ms_deform_attn_geometry.hpp"

namespace irstd::ms_deform_attn {

// One thread writes one part of a record, of blockDim.x parts; blockDim.y records are a block, heads
// and images are along the grid's y and z. `join(at)` makes the part from those of the values,
// at(dx, dy) to the right and below. Reads and writes are contiguous over a record, writes over a row.
template <class Part, class Joined, class Join>
__device__ __forceinline__ void pad(const Part* __restrict__ value, Part border,
                                    Joined* __restrict__ records, const PadGeometry& geometry,
                                    Join join) {
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
    records[(map + record) * parts + part] = join(at);
}

template <class Part>
struct alignas(4 * sizeof(Part)) Quad {
    Part here, right, below, below_right;
};

template <class Part>
__device__ __forceinline__ void pad_quads(const Part* __restrict__ value, Part border,
                                          void* __restrict__ records, const PadGeometry& geometry) {
    pad(value, border, static_cast<Quad<Part>*>(records), geometry,
        [](const auto& at) { return Quad<Part>{at(0, 0), at(1, 0), at(0, 1), at(1, 1)}; });
}

// Eight channels of two neighbours, alternating.
__device__ __forceinline__ uint4 interleaved(uint2 left, uint2 right) {
    return {__byte_perm(left.x, right.x, 0x5140), __byte_perm(left.x, right.x, 0x7362),
            __byte_perm(left.y, right.y, 0x5140), __byte_perm(left.y, right.y, 0x7362)};
}

__device__ __forceinline__ unsigned char border_of(const float* zero) {
    return static_cast<unsigned char>(zero[blockIdx.y]);
}

}  // namespace irstd::ms_deform_attn
