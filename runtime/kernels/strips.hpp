// Geometry of CUDA kernels whose blocks walk along strips of an image: they pool all channels of a
// few rows into a ring of rows in shared memory, and gate the rows that have all their neighbours
// there.
#pragma once

#include "launch.hpp"

namespace irstd::strips {

constexpr int KERNEL_PX = 7;  // of the gates
constexpr int REACH_PX = KERNEL_PX / 2;
constexpr int POOLS = 2;  // maps of a band

constexpr int STEP_ROWS = 4;
constexpr int STRIP_BYTES = 128;  // its width in a row of x: four sectors of the cache
constexpr int VECTOR_BYTES = 16;
constexpr int STRIP_VECTORS = STRIP_BYTES / VECTOR_BYTES;
constexpr int ROW_VECTORS = STRIP_VECTORS + 2;  // one to either side, for the reach of the gates

// Pooling: a warp takes four vectors of a step, in eight groups of channels.
constexpr int WARP_VECTORS = 4;
constexpr int CHANNEL_GROUPS = 32 / WARP_VECTORS;
constexpr int WARPS = STEP_ROWS * ROW_VECTORS / WARP_VECTORS;
constexpr int THREADS = 32 * WARPS;
constexpr int BLOCKS_PER_MULTIPROCESSOR = 2;  // one pools while the other is busy with its gates

// Pooled rows that the gates of a step reach into, in whole steps; the first LEAD_ROWS are not
// needed.
constexpr int RING_STEPS = 3;
constexpr int RING_ROWS = RING_STEPS * STEP_ROWS;
constexpr int LEAD_ROWS = RING_ROWS - STEP_ROWS - 2 * REACH_PX;

// Shared memory, in floats. Paddings keep the bands that neighbouring lanes read out of each
// other's banks.
template <int ElementBytes, int Bands>
struct Layout {
    static constexpr int VECTOR_PX = VECTOR_BYTES / ElementBytes;
    static constexpr int STRIP_PX = STRIP_BYTES / ElementBytes;
    static constexpr int ROW_PX = ROW_VECTORS * VECTOR_PX;
    static constexpr int PLANE = RING_ROWS * ROW_PX + 16 / Bands;  // a ring of pooled rows
    static constexpr int WEIGHTS = Bands * POOLS * PLANE;
    static constexpr int WEIGHT_ROW = KERNEL_PX + 1;
    static constexpr int BAND_WEIGHTS = POOLS * KERNEL_PX * WEIGHT_ROW + 4;
    static constexpr int GATES = WEIGHTS + Bands * BAND_WEIGHTS;
    static constexpr int GATE = STEP_ROWS * STRIP_PX;  // of one band
    static constexpr int FLOATS = GATES + Bands * GATE;
};

struct Plan {
    Launch launch;     // (strips, segments, images) blocks
    int segment_rows;  // of its strip that a block gates
};

// As many blocks as run at once. Fewer would leave multiprocessors without work; each one more
// reads rows twice, and two neighbours share these through the cache only if they run at the same
// time.
template <int ElementBytes>
Plan plan(int images, int height, int width, int multiprocessors, int shared_floats) {
    const unsigned strips = divide_up(width, STRIP_BYTES / ElementBytes);
    const unsigned at_once = BLOCKS_PER_MULTIPROCESSOR * multiprocessors / (strips * images);
    const unsigned steps = divide_up(divide_up(height, at_once ? at_once : 1), STEP_ROWS);
    const unsigned rows = STEP_ROWS * (steps < 2 ? 2 : steps);
    return {{{strips, divide_up(height, rows), static_cast<unsigned>(images)},
             {THREADS, 1, 1},
             static_cast<unsigned>(shared_floats) * 4},
            static_cast<int>(rows)};
}

}  // namespace irstd::strips
