// What the exported functions of the CPU library return: no exception crosses to C.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstddef>

namespace irstd {

enum Status { DONE = 0, NOT_FINITE = 1, NO_MEMORY = 2 };  // the larger the worse

// Runs `compute`, which returns whether what it read is finite. All that it can throw is that there
// is no memory.
template <class Compute>
int status_of(const Compute& compute) noexcept {
    try {
        return compute() ? DONE : NOT_FINITE;
    } catch (...) {
        return NO_MEMORY;
    }
}

inline bool are_finite(const float* numbers, size_t count) {
    bool all = true;
    for (size_t i = 0; i < count; ++i) all &= std::fabs(numbers[i]) <= FLT_MAX;
    return all;
}

}  // namespace irstd
