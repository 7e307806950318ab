// The gates and the recombination of the spectral split on a CPU. One pass down the image in strips
// of a few rows: a strip of x and of its low band comes from memory once, is pooled over the
// channels, and is recombined while it is still in a cache.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "../gate7x7.hpp"
#include "spectral_split.hpp"
#include "spectral_split_buffer.hpp"
#include "spectral_split_cpu.hpp"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace irstd::spectral_split {
namespace {

constexpr int PLANES = BANDS * POOLS;  // band * POOLS + pool
constexpr int STRIP_ROWS = gate7x7::ROWS;
constexpr int HALO_ROWS = 2 * REACH_PX;
constexpr int GROUP = 4;  // channels pooled together: what they are pooled into is loaded once
constexpr float MOST = 3.402823466e38f;

struct Image {
    const float *x, *low;
    int channels, height, width;

    size_t at(int channel, int y) const {
        return (static_cast<size_t>(channel) * height + y) * width;
    }
};

// The pooled bands around a strip, zeros outside the image: HALO_ROWS + STRIP_ROWS rows, row 0 being
// REACH_PX above the strip, with at least REACH_PX zeros to each side.
class Maps {
public:
    explicit Maps(int width)
        : stride((LANES + width + REACH_PX + LANES - 1) / LANES * LANES),
          values_(PLANES * (HALO_ROWS + STRIP_ROWS) * stride) {}

    const size_t stride;

    float* row(int plane, int row) {
        return values_.data() + (plane * (HALO_ROWS + STRIP_ROWS) + row) * stride + LANES;
    }

    // Move on to the next strip: its halo above is what was below.
    void advance() {
        for (int plane = 0; plane < PLANES; ++plane)
            std::memmove(row(plane, 0) - LANES, row(plane, STRIP_ROWS) - LANES,
                         HALO_ROWS * stride * sizeof(float));
    }

private:
    Buffer values_;
};

// The sum of x and, for both bands, sum and maximum over the channels so far.
struct Pools {
    float* __restrict sum_x;
    float* __restrict sum_low;
    float* __restrict most_low;
    float* __restrict most_high;
};

template <typename T, int COUNT>
inline __attribute__((always_inline)) void pool_at(const float* const* x, const float* const* low,
                                                   int i, const Pools& pools) {
    T sum_x, sum_low, most_low, most_high, here, smooth;
    load(pools.sum_x + i, sum_x);
    load(pools.sum_low + i, sum_low);
    load(pools.most_low + i, most_low);
    load(pools.most_high + i, most_high);
#pragma GCC unroll 4
    for (int k = 0; k < COUNT; ++k) {
        load(x[k] + i, here);
        load(low[k] + i, smooth);
        const T detail = here - smooth;
        sum_x += here;
        sum_low += smooth;
        most_low = smooth > most_low ? smooth : most_low;
        most_high = detail > most_high ? detail : most_high;
    }
    store(sum_x, pools.sum_x + i);
    store(sum_low, pools.sum_low + i);
    store(most_low, pools.most_low + i);
    store(most_high, pools.most_high + i);
}

template <int COUNT>
inline __attribute__((always_inline)) void pool(const float* const* x, const float* const* low,
                                                int width, const Pools& pools) {
    int i = 0;
    for (; i + LANES <= width; i += LANES) pool_at<Pixels, COUNT>(x, low, i, pools);
    for (; i < width; ++i) pool_at<float, COUNT>(x, low, i, pools);
}

// Pool rows [begin, end) of the image into the maps, from row `first` of these on; `sums` has room for
// as many rows. Returns whether the pixels are finite.
IRSTD_CLONES bool pool_rows(const Image& image, int begin, int end, int first, Maps& maps,
                            float* sums) {
    const int width = image.width;
    const auto pools = [&](int y) {
        const int row = first + y - begin;
        return Pools{sums + static_cast<size_t>(y - begin) * width, maps.row(0, row),
                     maps.row(1, row), maps.row(POOLS + 1, row)};
    };
    for (int y = begin; y < end; ++y) {
        const Pools into = pools(y);
        std::fill_n(into.sum_x, width, 0.0f);
        std::fill_n(into.sum_low, width, 0.0f);
        std::fill_n(into.most_low, width, -MOST);
        std::fill_n(into.most_high, width, -MOST);
    }
    for (int channel = 0; channel < image.channels;) {
        const int group = image.channels - channel >= GROUP ? GROUP : 1;
        for (int y = begin; y < end; ++y) {
            const float *x[GROUP], *low[GROUP];
            for (int k = 0; k < group; ++k) {
                x[k] = image.x + image.at(channel + k, y);
                low[k] = image.low + image.at(channel + k, y);
            }
            if (group == GROUP) pool<GROUP>(x, low, width, pools(y));
            else pool<1>(x, low, width, pools(y));
        }
        channel += group;
    }
    const float share = 1.0f / static_cast<float>(image.channels);
    int strange = 0;
    for (int y = begin; y < end; ++y) {
        const Pools of = pools(y);
        float* __restrict mean_high = maps.row(POOLS, first + y - begin);
        for (int i = 0; i < width; ++i) {
            // NaN and infinity stay what they are in a sum.
            strange |= !(std::fabs(of.sum_x[i] + of.sum_low[i]) <= MOST);
            mean_high[i] = share * (of.sum_x[i] - of.sum_low[i]);
            of.sum_low[i] *= share;
        }
    }
    return !strange;
}

// The gates of a strip: (BANDS, STRIP_ROWS, width).
IRSTD_CLONES void gate_strip(Maps& maps, int width, const float* weight, const float* bias,
                             float* __restrict gates) {
    const int size = STRIP_ROWS * width;
    for (int band = 0; band < BANDS; ++band) {
        float* gate = gates + static_cast<size_t>(band) * size;
        std::fill_n(gate, size, bias[band]);
        for (int pool = 0; pool < POOLS; ++pool) {
            const int plane = band * POOLS + pool;
            gate7x7::correlate(maps.row(plane, 0) - REACH_PX, maps.stride,
                               weight + plane * KERNEL_PX * KERNEL_PX, width, gate, width);
        }
        for (int i = 0; i < size; ++i) gate[i] = sigmoid(gate[i]);
    }
}

// The result for `size` pixels of a channel. It is larger than the cache: where it is aligned it goes
// past it.
IRSTD_CLONES void recombine(const float* x, const float* low, const float* gate_low,
                            const float* gate_high, float gamma_low, float gamma_high, int size,
                            float* __restrict out) {
    int i = 0;
#if defined(__SSE2__)
    typedef float Quad __attribute__((vector_size(16)));
    if (reinterpret_cast<uintptr_t>(out) % sizeof(Quad) == 0)
        for (; i + 4 <= size; i += 4) {
            const auto quad = [i](const float* p) __attribute__((always_inline)) {
                return Quad(_mm_loadu_ps(p + i));
            };
            _mm_stream_ps(out + i, recombined<Quad>(quad(x), quad(low), gamma_low * quad(gate_low),
                                                    gamma_high * quad(gate_high)));
        }
#endif
    for (; i < size; ++i)
        out[i] = recombined(x[i], low[i], gamma_low * gate_low[i], gamma_high * gate_high[i]);
}

// Rows [begin, end) of the result. Returns whether what they depend on is finite.
bool gate_rows(const Image& image, const float* weight, const float* bias, const float* gamma,
               float* out, int begin, int end) {
    const int width = image.width, height = image.height, channels = image.channels;
    Maps maps(width);
    Buffer gates(static_cast<size_t>(BANDS) * STRIP_ROWS * width);
    Buffer sums(static_cast<size_t>(STRIP_ROWS + HALO_ROWS) * width);
    int pooled = std::max(begin - REACH_PX, 0);  // rows above this one are in the maps
    bool is_finite = true;
    for (int y = begin; y < end; y += STRIP_ROWS) {
        if (y > begin) maps.advance();
        const int top = y - REACH_PX, bottom = y + STRIP_ROWS + REACH_PX;
        const int next = std::max(std::min(bottom, height), pooled);
        is_finite &= pool_rows(image, pooled, next, pooled - top, maps, sums.data());
        pooled = next;
        for (int outside = next; outside < bottom; ++outside)
            for (int plane = 0; plane < PLANES; ++plane)
                std::fill_n(maps.row(plane, outside - top), width, 0.0f);
        gate_strip(maps, width, weight, bias, gates.data());
        const int size = std::min(STRIP_ROWS, end - y) * width;
        for (int channel = 0; channel < channels; ++channel) {
            const size_t at = image.at(channel, y);
            recombine(image.x + at, image.low + at, gates.data(),
                      gates.data() + static_cast<size_t>(STRIP_ROWS) * width, gamma[channel],
                      gamma[channels + channel], size, out + at);
        }
    }
#if defined(__SSE2__)
    _mm_sfence();
#endif
    return is_finite;
}

}  // namespace
}  // namespace irstd::spectral_split

int irstd_spectral_split_gate_f32(const float* x, const float* low, const float* gate_weight,
                                  const float* gate_bias, const float* gamma, float* out,
                                  int channels, int height, int width, int begin, int end) {
    const bool is_finite = irstd::spectral_split::gate_rows(
        {x, low, channels, height, width}, gate_weight, gate_bias, gamma, out, begin, end);
    return is_finite ? 0 : 1;
}
