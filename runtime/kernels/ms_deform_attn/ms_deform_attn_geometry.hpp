// What host and device agree on for the CUDA form: how value maps lie in memory, and the numbers
// that a launch passes to the kernels.
//
// The gather reads records, not values: [N][M][positions][record], then a tail. A head's positions
// are its levels one after the other, each with a border of zeros (PaddedLevel), so that no tap needs
// a test and the taps of a row follow each other. What a record holds of channel d at (x, y):
//
//   f16, f32, D >= 8   [D]        the value
//   u8, D >= 8         [D][2]     it and its right neighbour: two bytes of a packed product
//   D = 1              [2][2]     it, right, below, below right: a point is one load
//
// Zero is the number 0, and for u8 the head's zero point. A projection whose result is read by the
// first kind may write records itself, borders being zero, and spare the pass over the values.
#pragma once

#include "ms_deform_attn.hpp"

namespace irstd::ms_deform_attn {

enum class Number { F16, F32, U8 };

IRSTD_HD constexpr unsigned bytes_of(Number number) {
    return number == Number::F32 ? 4 : number == Number::F16 ? 2 : 1;
}

// Values in a record for each channel.
IRSTD_HD constexpr unsigned values_per_channel(Number number, int d_head) {
    return d_head == 1 ? 4 : number == Number::U8 ? 2 : 1;
}

IRSTD_HD constexpr unsigned record_bytes(Number number, int d_head) {
    return static_cast<unsigned>(d_head) * values_per_channel(number, d_head) * bytes_of(number);
}

// Lanes that share a head of a query: each has 8 channels, a 16-byte load of half.
IRSTD_HD constexpr int lanes_per_head(int d_head) { return d_head == 1 ? 1 : d_head / 8; }

struct GatherLevel {
    int origin;              // record of pixel (0, 0) within a head
    float stride;            // records from a row to the next
    unsigned row_bytes;      // the same in bytes
    float scale_x, scale_y;  // px of this level for a step of 1 in a query's reference
    float width, height;     // px
};

struct Geometry {
    GatherLevel level[MAX_LEVELS];
    int records;  // of one head
    int heads;
    int query_width, query_height;
};

struct PadLevel {
    int height, width;
    int start;   // its first value, (N, S, M, D)
    int first;   // its first record
};

struct PadGeometry {
    PadLevel level[MAX_LEVELS];
    int levels;
    int records;    // of one head
    int positions;  // S
    int heads, d_head;
    int tail;  // records after the last head
};

}  // namespace irstd::ms_deform_attn
