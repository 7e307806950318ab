// The values of one head as the CPU form reads them: by themselves, in levels with a border of
// zeros, so that a point outside needs no branch and the two neighbours in a row are contiguous.
#pragma once

#include <cstddef>

#include "ms_deform_attn_cpu.hpp"

namespace irstd::ms_deform_attn {

using Shape = irstd_ms_deform_attn_shape;
using Linear = irstd_ms_deform_attn_linear;
using Module = irstd_ms_deform_attn_module;

constexpr int MOST_POINTS = MAX_LEVELS * MAX_POINTS;  // of a query

struct MapLevel {
    int width, height;
    int start, stride;  // as in PaddedLevel
};

struct MapLevels {
    int count, points;      // points of a query on each level
    int values, positions;  // without and with borders
    MapLevel level[MAX_LEVELS];

    explicit MapLevels(const Shape& shape)
        : count(shape.levels), points(shape.points), values(0), positions(0) {
        for (int l = 0; l < count; ++l) {
            const Level plain = {shape.level_hw[2 * l], shape.level_hw[2 * l + 1], values};
            level[l] = {plain.width, plain.height, positions, plain.width + 1};
            values += plain.height * plain.width;
            positions += padded_positions(plain);
            if (l + 1 == count) positions += padded_tail(plain);
        }
    }

    // Position of a level's pixel (0, 0).
    int origin(int l) const { return level[l].start + level[l].stride + 1; }
};

// [position][D]
struct FloatMap {
    const float* values;
};

// [position][D][2]: a value and its right neighbour, each less 128, which are multiplied and added
// together. Multiplied by 255ths that sum up to 255, 16 bits hold a sample.
struct ByteMap {
    const int8_t* pairs;
    float scale, shift;  // a value is scale * pair + shift
};

inline void set_address(FloatMap& map, const float* values) { map.values = values; }
inline void set_address(ByteMap& map, const int8_t* pairs) { map.pairs = pairs; }

// What a unit of the 16-bit sums of samples is of a unit of values: attention is in 1/32768 and its
// shares sum up to 32767.
constexpr float BYTE_SUM_UNIT = 32768.0f / 32767.0f / 255.0f;

constexpr int PANEL = 16;  // columns of weights that lie together

enum class Step { VALUES, MAPS, QUERIES };  // of the module

// A call of the core.
struct Core {
    Shape shape;
    const void* value;          // float, or bytes if there are scales
    const float *scale, *zero;  // of the heads
    const float *offsets, *logits, *reference_points;
    float* out;
};

}  // namespace irstd::ms_deform_attn
