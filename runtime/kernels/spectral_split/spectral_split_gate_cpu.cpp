// The gates and the recombination of the spectral split on a CPU: one pass down the image
// (strips_cpu.hpp), in which x and its low band are pooled over the channels and recombined.
#include <algorithm>
#include <cfloat>
#include <cmath>

#include "../gate7x7.hpp"
#include "../status.hpp"
#include "../strips_cpu.hpp"
#include "spectral_split.hpp"
#include "spectral_split_cpu.hpp"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace irstd::spectral_split {
namespace {

using strips_cpu::HALO_ROWS;
using strips_cpu::Maps;

constexpr int PLANES = BANDS * POOLS;  // band * POOLS + pool
constexpr int STRIP_ROWS = strips_cpu::ROWS;
constexpr int GROUP = 4;  // channels pooled together: what they are pooled into is loaded once

struct Image {
    const float *x, *low;
    int channels, height, width;

    size_t at(int channel, int y) const {
        return (static_cast<size_t>(channel) * height + y) * width;
    }
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
        std::fill_n(into.most_low, width, -FLT_MAX);
        std::fill_n(into.most_high, width, -FLT_MAX);
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
            strange |= !(std::fabs(of.sum_x[i] + of.sum_low[i]) <= FLT_MAX);
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
    const int width = image.width, channels = image.channels;
    Maps maps(PLANES, width);
    Buffer gates(static_cast<size_t>(BANDS) * STRIP_ROWS * width);
    Buffer sums(static_cast<size_t>(STRIP_ROWS + HALO_ROWS) * width);
    const auto pool = [&](int first, int last, int row) {
        return pool_rows(image, first, last, row, maps, sums.data());
    };
    const auto weigh = [&](int y, int rows) {
        gate_strip(maps, width, weight, bias, gates.data());
        for (int channel = 0; channel < channels; ++channel) {
            const size_t at = image.at(channel, y);
            recombine(image.x + at, image.low + at, gates.data(),
                      gates.data() + static_cast<size_t>(STRIP_ROWS) * width, gamma[channel],
                      gamma[channels + channel], rows * width, out + at);
        }
    };
    const bool is_finite = strips_cpu::walk(maps, image.height, begin, end, pool, weigh);
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
    using namespace irstd::spectral_split;
    return irstd::status_of([=] {
        const bool is_finite = irstd::are_finite(gate_weight, WEIGHTS) &&
                               irstd::are_finite(gate_bias, BANDS) &&
                               irstd::are_finite(gamma, static_cast<size_t>(BANDS) * channels);
        return gate_rows({x, low, channels, height, width}, gate_weight, gate_bias, gamma, out,
                         begin, end) &&
               is_finite;
    });
}
