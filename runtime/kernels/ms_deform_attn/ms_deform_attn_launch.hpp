// The launches of deformable attention on a GPU: pad, then gather.
#pragma once

#include <cstddef>
#include <cstdio>

#include "../launch.hpp"
#include "ms_deform_attn_geometry.hpp"

namespace irstd::ms_deform_attn {

using Shape = irstd_ms_deform_attn_shape;

// Two launches and the bytes that the records between them take. Arguments in this order:
//   pad     value, zero (u8 only), records, pad_geometry
//   gather  records, scale and zero (u8 only), offsets, logits, reference_points or null, out, geometry
struct Plan {
    char pad_kernel[40], gather_kernel[40];
    Launch pad, gather;
    PadGeometry pad_geometry;
    Geometry geometry;
    uint64_t records_bytes;
};

// What a launch cannot do of what the operator can, or null.
inline const char* refuse(const Shape& shape, Number number) {
    if (shape.heads * lanes_per_head(shape.d_head) > BLOCK_THREADS)
        return "too many heads: wanted at most 256 threads for a query, one for 8 channels of a head";
    const int64_t items = int64_t{shape.images} * shape.queries * shape.heads;
    if (items >= int64_t{1} << 31) return "images x queries x heads is 2^31 or more";
    if (shape.images > 65535 || shape.query_hw[0] > 65535)
        return "more than 65535 images or rows of queries";
    int64_t records = 0;
    for (int l = 0; l < shape.levels; ++l) {
        const int64_t level =
            (int64_t{shape.level_hw[2 * l]} + 2) * (int64_t{shape.level_hw[2 * l + 1]} + 1);
        if (level >= int64_t{1} << 24) return "a level has 2^24 pixels or more, its border included";
        records += level;
    }
    if (records * record_bytes(number, shape.d_head) >= int64_t{1} << 31)
        return "the values of a head take 2 GiB or more";
    return nullptr;
}

inline PadGeometry make_pad_geometry(const Shape& shape) {
    PadGeometry geometry{};
    geometry.levels = shape.levels;
    geometry.heads = shape.heads;
    for (int l = 0; l < shape.levels; ++l) {
        const Level level{shape.level_hw[2 * l], shape.level_hw[2 * l + 1], geometry.values};
        geometry.level[l] = {level.height, level.width, level.start, geometry.records};
        geometry.values += level.height * level.width;
        geometry.records += padded_positions(level);
        geometry.tail = padded_tail(level);
    }
    ++geometry.records;  // a point right of and below the last level: the next head has another zero
    return geometry;
}

inline Geometry make_geometry(const Shape& shape, Number number, bool has_reference_points) {
    Geometry geometry{};
    const PadGeometry padded = make_pad_geometry(shape);
    // Queries with reference points are a grid of one row.
    geometry.query_width = has_reference_points ? shape.queries : shape.query_hw[1];
    geometry.query_height = has_reference_points ? 1 : shape.query_hw[0];
    const float query_width = static_cast<float>(geometry.query_width);
    const float query_height = static_cast<float>(geometry.query_height);
    geometry.levels = shape.levels;
    geometry.points = shape.points;
    geometry.heads = shape.heads;
    geometry.records = padded.records;
    for (int l = 0; l < shape.levels; ++l) {
        const float height = static_cast<float>(padded.level[l].height);
        const float width = static_cast<float>(padded.level[l].width);
        const int stride = padded.level[l].width + 1;
        geometry.level[l] = {width,
                             height,
                             has_reference_points ? width : width / query_width,
                             has_reference_points ? height : height / query_height,
                             static_cast<float>(stride),
                             stride * record_bytes(number, shape.d_head),
                             padded.level[l].first_record + stride + 1};
    }
    return geometry;
}

// A block is a patch of the grid of queries, because neighbours read the same values: twice as wide as
// high, as far as that goes.
inline Launch gather_launch(const Shape& shape, const Geometry& geometry) {
    const unsigned threads = shape.heads * lanes_per_head(shape.d_head);
    const unsigned queries = BLOCK_THREADS / threads;
    unsigned wide = 1, high = 1;
    while (2 * wide * high <= queries) (wide > high ? high : wide) *= 2;
    if (geometry.query_height == 1) wide *= high, high = 1;
    return {{divide_up(geometry.query_width, wide), divide_up(geometry.query_height, high),
             static_cast<unsigned>(shape.images)},
            {threads, wide, high},
            0};
}

// Threads that write a record: 16 bytes each, or all of it where it is a quad.
inline Launch pad_launch(const Shape& shape, Number number, const PadGeometry& geometry) {
    const unsigned parts = shape.d_head == 1 ? 1 : record_bytes(number, shape.d_head) / 16;
    const unsigned records = BLOCK_THREADS / parts;
    return {{divide_up(geometry.records + geometry.tail, records),
             static_cast<unsigned>(shape.heads), static_cast<unsigned>(shape.images)},
            {parts, records, 1},
            0};
}

// Of a shape that `refuse` does not.
inline Plan plan(const Shape& shape, Number number, bool has_reference_points) {
    Plan plan{};
    plan.pad_geometry = make_pad_geometry(shape);
    plan.geometry = make_geometry(shape, number, has_reference_points);
    plan.pad = pad_launch(shape, number, plan.pad_geometry);
    plan.gather = gather_launch(shape, plan.geometry);
    plan.records_bytes = (static_cast<uint64_t>(shape.images) * shape.heads * plan.geometry.records +
                          plan.pad_geometry.tail) *
                         record_bytes(number, shape.d_head);

    const char* const name = number == Number::F16 ? "f16" : number == Number::F32 ? "f32" : "u8";
    const char* const pad = shape.d_head > 1 ? number == Number::U8 ? "_u8" : "" : nullptr;
    if (pad)
        snprintf(plan.pad_kernel, sizeof plan.pad_kernel, "irstd_ms_deform_attn_pad%s", pad);
    else
        snprintf(plan.pad_kernel, sizeof plan.pad_kernel, "irstd_ms_deform_attn_pad_%s_d1", name);
    const bool is_unrolled = shape.points == 4 && shape.levels >= 2;
    const int written = snprintf(plan.gather_kernel, sizeof plan.gather_kernel,
                                 "irstd_ms_deform_attn_%s_d%d", name, shape.d_head);
    if (is_unrolled)
        snprintf(plan.gather_kernel + written, sizeof plan.gather_kernel - written, "_l%d_p4",
                 shape.levels);
    return plan;
}

}  // namespace irstd::ms_deform_attn
