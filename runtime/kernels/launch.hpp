// The geometry of a CUDA launch, computed from the shapes in one place: `<op>_launch.hpp`.
#pragma once

namespace irstd {

struct Launch {
    unsigned grid[3];
    unsigned block[3];
    unsigned shared_bytes;  // dynamic shared memory
};

constexpr unsigned divide_up(unsigned a, unsigned b) { return (a + b - 1) / b; }

}  // namespace irstd
