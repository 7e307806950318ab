// The arithmetic of multi-scale deformable attention that host and device share (models.md 3.3).
//
// Coordinates are float32 everywhere: half has steps of 1/8 px from 128 px on, and a target is 3 px
// wide. Only offsets, logits and values may come in half.
#pragma once

#include <cmath>

#include "../portable.hpp"

namespace irstd::ms_deform_attn {

constexpr int MAX_LEVELS = 4;
constexpr int MAX_POINTS = 8;  // of a query on one level

// A level's map among the positions of a value tensor (N, S, M, D): row-major from `start` on.
struct Level {
    int height, width, start;
};

// Where the centre of pixel i of `queries` lies among `pixels` of the same side, in pixels.
IRSTD_HD float own_centre_px(int i, int queries, int pixels) {
    return (static_cast<float>(i) + 0.5f) * static_cast<float>(pixels) /
               static_cast<float>(queries) -
           0.5f;
}

// Where a reference point in [0, 1] lies among `pixels`, in pixels.
IRSTD_HD float reference_px(float reference, int pixels) {
    return reference * static_cast<float>(pixels) - 0.5f;
}

// Moves a coordinate that is out of reach to the nearest one whose sample is zero as well: on a map
// with a border of zeros no tap needs a test. NaN goes to -1.
IRSTD_HD float within_border(float px, float pixels) {
#if defined(__CUDA_ARCH__)
    return fminf(fmaxf(px, -1.0f), pixels);
#else
    px = px > -1.0f ? px : -1.0f;
    return px < pixels ? px : pixels;
#endif
}

// The pixel up and to the left of a point, from -1 to width and height, and how far the point is
// from it, from 0 to 1 px.
struct Corner {
    float x, y, dx, dy;
};

IRSTD_HD Corner corner(float x_px, float y_px, float width, float height) {
    x_px = within_border(x_px, width);
    y_px = within_border(y_px, height);
    const float x = floorf(x_px), y = floorf(y_px);
    return {x, y, x_px - x, y_px - y};
}

// Bilinear weights times the attention that the point gets; the first digit is the row.
struct Taps {
    float w00, w01, w10, w11;
};

IRSTD_HD Taps taps(float attention, float dx, float dy) {
    const float right = attention * dx, left = attention - right;
    const float w11 = right * dy, w10 = left * dy;
    return {left - w10, right - w11, w10, w11};
}

// A level inside a map with a border of zeros: one column, which ends a row and begins the next, and
// a row above and below. Position (x, y), both from -1 on, is start + (y + 1) * stride + x + 1.
struct PaddedLevel {
    int start, stride;
};

IRSTD_HD int padded_positions(Level level) { return (level.height + 2) * (level.width + 1); }

// Read with weight zero by points on the border of the last level, hence there and finite.
IRSTD_HD int padded_tail(Level last) { return last.width + 3; }

}  // namespace irstd::ms_deform_attn
