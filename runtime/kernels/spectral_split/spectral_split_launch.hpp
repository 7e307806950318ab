// Launch geometry of the spectral split.
#pragma once

#include "../strips.hpp"
#include "spectral_split.hpp"

namespace irstd::spectral_split {

// Sides are powers of two. Maps up to MOST_WHOLE_PX are transformed by one block in shared memory,
// larger ones by three kernels: rows, columns and back, rows back.
constexpr int LEAST_SIDE_PX = 32;
constexpr int MOST_SIDE_PX = 512;
constexpr int MOST_WHOLE_PX = 128 * 128;

constexpr bool is_side(int px) {
    return px >= LEAST_SIDE_PX && px <= MOST_SIDE_PX && (px & (px - 1)) == 0;
}

// Every thread holds eight complex values.
constexpr int THREAD_VALUES = 8;
constexpr int ROWS_THREADS = 256;
constexpr int BLOCK_COLUMNS = 8;  // 32 bytes of a row in half: a sector of the cache
constexpr int WHOLE_THREADS = MOST_WHOLE_PX / 2 / THREAD_VALUES;
constexpr int COLUMNS_THREADS = MOST_SIDE_PX;

// Shared memory, in complex numbers: n values, paddings that keep strided accesses off each other's
// banks, and the roots of unity that the transforms need.
constexpr int padded(int i) { return i + i / THREAD_VALUES; }
constexpr int pitch(int n) { return padded(n) + 1; }
constexpr int roots(int n) { return n / THREAD_VALUES; }

struct Plan {
    bool is_whole;
    Launch whole;                     // (images * channels) blocks
    Launch rows, columns, rows_back;  // (images * channels, parts of the map)
    strips::Plan gate;
};

template <int ElementBytes>
using Layout = strips::Layout<ElementBytes, BANDS>;

template <int ElementBytes>
Plan plan(int images, int channels, int height, int width, int multiprocessors) {
    const auto bytes = [](int values) { return static_cast<unsigned>(values) * 8; };
    const unsigned maps = static_cast<unsigned>(images) * channels;
    const int across = height / 2 * pitch(width), along = width / 2 * pitch(height);
    const int pairs = ROWS_THREADS * THREAD_VALUES / width;  // of rows, transformed by a block
    Plan plan{};
    plan.is_whole = height * width <= MOST_WHOLE_PX;
    plan.whole = {{maps, 1, 1},
                  {static_cast<unsigned>(height * width / 2 / THREAD_VALUES), 1, 1},
                  bytes((across > along ? across : along) + roots(height) + roots(width))};
    plan.rows = {{maps, static_cast<unsigned>(height / 2 / pairs), 1},
                 {ROWS_THREADS, 1, 1},
                 bytes(pairs * pitch(width) + roots(width))};
    plan.rows_back = plan.rows;
    plan.columns = {{maps, static_cast<unsigned>(width / 2 / BLOCK_COLUMNS), 1},
                    {static_cast<unsigned>(height), 1, 1},
                    bytes(BLOCK_COLUMNS * pitch(height) + roots(height))};
    plan.gate = strips::plan<ElementBytes>(images, height, width, multiprocessors,
                                           Layout<ElementBytes>::FLOATS);
    return plan;
}

}  // namespace irstd::spectral_split
