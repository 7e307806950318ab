// What host and device agree on for the CUDA form: how values lie in memory for the gather, and the
// numbers that a launch passes to the kernels.
//
// The gather reads records, [N][M][records of a head][record] and a tail: a head's levels one after
// the other, each with a border of zeros as PaddedLevel describes it, so that no tap needs a test, and
// one record of the border.
// What the record of (x, y) holds:
//
//   f16, f32, D >= 8   [D]        the value
//   u8, D >= 8         [D][2]     of each channel the value and its right neighbour, which the gather
//                                 multiplies and adds together
//   D = 1              [2][2]     the value, right, below, below right: a point is one load
//
// The border is the number 0; in u8 it is the head's zero point. Records of the first kind are the
// values themselves, head by head: a projection may write them directly, without the pad kernel.
#pragma once

#include "ms_deform_attn_shape.hpp"

namespace irstd::ms_deform_attn {

constexpr int BLOCK_THREADS = 256;  // at most

enum class Number { F16, F32, U8 };

// Lanes that share a head of a query: each has 8 channels, in half one 16-byte load.
constexpr int CHANNELS_PER_LANE = 8;
IRSTD_HD constexpr int lanes_per_head(int d_head) {
    return d_head == 1 ? 1 : d_head / CHANNELS_PER_LANE;
}

IRSTD_HD constexpr int record_bytes(Number number, int d_head) {
    const int bytes = number == Number::F32 ? 4 : number == Number::F16 ? 2 : 1;
    return bytes * d_head * (d_head == 1 ? 4 : number == Number::U8 ? 2 : 1);
}

// Parameters of the pad kernels.
struct PadGeometry {
    struct {
        int height, width;
        int first_value, first_record;  // in a head
    } level[MAX_LEVELS];
    int levels, heads;
    int values, records, tail;  // of a head; records after the last one
};

// Parameters of the gather.
struct Geometry {
    struct Level {
        float width, height;     // px
        float scale_x, scale_y;  // px of this level for 1 in a query's reference
        float stride;            // records from a row to the next
        int row_bytes;           // the same in bytes
        int origin;              // record of pixel (0, 0) in a head
    } level[MAX_LEVELS];
    int levels, points;  // for the gather of any number of them
    int heads, records;  // of a head
    int query_width, query_height;
};

}  // namespace irstd::ms_deform_attn
