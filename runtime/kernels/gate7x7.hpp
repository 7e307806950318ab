// The gate of a frequency band: a 7x7 correlation over pooled maps and a sigmoid, on a CPU.
#pragma once

#include "pixels.hpp"

namespace irstd::gate7x7 {

constexpr int KERNEL_PX = 7;
constexpr int REACH_PX = KERNEL_PX / 2;
constexpr int ROWS = 4;  // computed together: every pixel that is loaded serves up to four of them

// Add the correlation of one map to the logits of ROWS rows, `Count` vectors T from pixel `i` on.
// Two vectors share each weight that is loaded.
template <typename T, int Count>
inline __attribute__((always_inline)) void correlate_at(const float* map, size_t map_stride,
                                                        const float* weight, int i, float* logit,
                                                        size_t logit_stride) {
    constexpr int STEP = sizeof(T) / sizeof(float);
    T sum[ROWS][Count];
#pragma GCC unroll 4
    for (int row = 0; row < ROWS; ++row)
        for (int k = 0; k < Count; ++k) load(logit + row * logit_stride + i + k * STEP, sum[row][k]);
#pragma GCC unroll 16
    for (int y = 0; y < ROWS + KERNEL_PX - 1; ++y) {
#pragma GCC unroll 8
        for (int dx = 0; dx < KERNEL_PX; ++dx) {
            __asm__ volatile("" ::: "memory");  // or GCC loads so far ahead that it runs out of registers
            T pixels[Count];
            for (int k = 0; k < Count; ++k) load(map + y * map_stride + i + dx + k * STEP, pixels[k]);
#pragma GCC unroll 4
            for (int row = 0; row < ROWS; ++row)
                if (y >= row && y < row + KERNEL_PX)
#pragma GCC unroll 2
                    for (int k = 0; k < Count; ++k)
                        sum[row][k] += weight[(y - row) * KERNEL_PX + dx] * pixels[k];
        }
    }
#pragma GCC unroll 4
    for (int row = 0; row < ROWS; ++row)
        for (int k = 0; k < Count; ++k)
            store(sum[row][k], logit + row * logit_stride + i + k * STEP);
}

// Add the correlation of one map to ROWS rows of logits. `map` points REACH_PX rows above and pixels
// left of the first result; both strides are in floats. `weight` is 7x7.
inline __attribute__((always_inline)) void correlate(const float* map, size_t map_stride,
                                                     const float* weight, int width, float* logit,
                                                     size_t logit_stride) {
    int i = 0;
    for (; i + 2 * LANES <= width; i += 2 * LANES)
        correlate_at<Pixels, 2>(map, map_stride, weight, i, logit, logit_stride);
    for (; i < width; ++i) correlate_at<float, 1>(map, map_stride, weight, i, logit, logit_stride);
}

}  // namespace irstd::gate7x7
