// Eight neighbouring pixels in one register, for loops on a CPU that say their vectors themselves.
#pragma once

#include <cstddef>

#include "portable.hpp"

namespace irstd {

typedef float Pixels __attribute__((vector_size(32)));
typedef Pixels UnalignedPixels __attribute__((aligned(4)));
constexpr int LANES = sizeof(Pixels) / sizeof(float);
constexpr int MOST_OF_MAP = 1 << 27;  // px: a few rows of it, or twice its numbers, are counted in int

// Read or write the pixels from p on, at any alignment.
inline __attribute__((always_inline)) void load(const float* p, Pixels& value) {
    value = *reinterpret_cast<const UnalignedPixels*>(p);
}

inline __attribute__((always_inline)) void load(const float* p, float& value) { value = *p; }

inline __attribute__((always_inline)) void store(const Pixels& value, float* p) {
    *reinterpret_cast<UnalignedPixels*>(p) = value;
}

inline __attribute__((always_inline)) void store(const float& value, float* p) { *p = value; }

// The pixels one to the left; what comes in is zero.
inline __attribute__((always_inline)) void shift_in_zero(const Pixels& in, Pixels& out) {
    typedef int Indices __attribute__((vector_size(sizeof(Pixels))));
    out = __builtin_shuffle(in, Pixels{}, Indices{8, 0, 1, 2, 3, 4, 5, 6});
}

inline __attribute__((always_inline)) void shift_in_zero(const float&, float& out) { out = 0.0f; }

}  // namespace irstd
