// The shapes of one call, as Python and the engines' plugins pass them.
#pragma once

#include <cstdint>

#include "ms_deform_attn.hpp"

// Plain ints in this order: Python passes them as an array.
struct irstd_ms_deform_attn_shape {
    int32_t images, queries, heads;
    int32_t d_head;            // 1, 8, 16 or 32
    int32_t levels, points;    // up to MAX_LEVELS and MAX_POINTS
    int32_t query_hw[2];       // of a grid of queries; without effect where reference points are given
    int32_t level_hw[2 * irstd::ms_deform_attn::MAX_LEVELS];
};
