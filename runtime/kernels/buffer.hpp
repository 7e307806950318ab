// Zeroed floats that start at a cache line.
#pragma once

#include <cstddef>
#include <vector>

namespace irstd {

class Buffer {
public:
    explicit Buffer(size_t floats) : lines_((floats + LINE_PX - 1) / LINE_PX) {}
    float* data() { return lines_.data()->values; }
    const float* data() const { return lines_.data()->values; }

    static constexpr int LINE_PX = 16;

private:
    struct alignas(64) Line {
        float values[LINE_PX];
    };
    std::vector<Line> lines_;
};

}  // namespace irstd
