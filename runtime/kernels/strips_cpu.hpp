// How gates of frequency bands walk down an image on a CPU, in strips of a few rows: the image comes
// from memory once, is pooled over the channels into maps of the rows that a strip's gates reach, and
// is weighted while it is still in a cache.
#pragma once

#include <algorithm>
#include <cstring>

#include "buffer.hpp"
#include "gate7x7.hpp"

namespace irstd::strips_cpu {

constexpr int ROWS = gate7x7::ROWS;  // of a strip
constexpr int REACH_PX = gate7x7::REACH_PX;
constexpr int HALO_ROWS = 2 * REACH_PX;

// The pooled bands around a strip, zeros outside the image. Each plane has HALO_ROWS + ROWS rows, row
// 0 being REACH_PX above the strip, with at least REACH_PX zeros to each side.
class Maps {
public:
    Maps(int planes, int width)
        : stride((static_cast<size_t>(LANES) + width + REACH_PX + LANES - 1) / LANES * LANES),
          planes_(planes),
          width_(width),
          values_(planes * (HALO_ROWS + ROWS) * stride) {}

    const size_t stride;

    // The first pixel of a row, aligned.
    float* row(int plane, int row) {
        return values_.data() + static_cast<size_t>(plane * (HALO_ROWS + ROWS) + row) * stride + LANES;
    }

    // Move on to the next strip: its halo above is what was below.
    void advance() {
        for (int plane = 0; plane < planes_; ++plane)
            std::memmove(row(plane, 0) - LANES, row(plane, ROWS) - LANES,
                         HALO_ROWS * stride * sizeof(float));
    }

    // Rows from `first` on are outside the image.
    void clear_from(int first) {
        for (int outside = first; outside < HALO_ROWS + ROWS; ++outside)
            for (int plane = 0; plane < planes_; ++plane)
                std::fill_n(row(plane, outside), width_, 0.0f);
    }

private:
    const int planes_, width_;
    Buffer values_;
};

// Walks down the rows [begin, end) of a result. `pool(first, last, row)` pools the rows [first, last)
// of the image, none of them twice, into the maps from `row` on, and returns whether they are finite;
// then `gate(y, rows)` makes the result of the rows from y on out of the maps around them. Returns
// whether all that was pooled is finite.
template <class Pool, class Gate>
bool walk(Maps& maps, int height, int begin, int end, const Pool& pool, const Gate& gate) {
    int pooled = std::max(begin - REACH_PX, 0);  // rows above this one are in the maps
    bool is_finite = true;
    for (int y = begin; y < end; y += ROWS) {
        if (y > begin) maps.advance();
        const int top = y - REACH_PX, bottom = y + ROWS + REACH_PX;
        const int next = std::max(std::min(bottom, height), pooled);
        if (next > pooled) is_finite &= pool(pooled, next, pooled - top);
        pooled = next;
        maps.clear_from(next - top);
        gate(y, std::min(ROWS, end - y));
    }
    return is_finite;
}

}  // namespace irstd::strips_cpu
