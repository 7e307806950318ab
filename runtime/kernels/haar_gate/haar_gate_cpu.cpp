// The Haar gate on a CPU: one pass down the image (strips_cpu.hpp), in which x is pooled over the
// channels and multiplied by the sum of its gates.
#include "haar_gate_cpu.hpp"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <vector>

#include "../gate7x7.hpp"
#include "../status.hpp"
#include "../strips_cpu.hpp"
#include "haar_gate.hpp"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace irstd::haar_gate {
namespace {

using strips_cpu::HALO_ROWS;
using strips_cpu::Maps;

constexpr int PLANES = BANDS * POOLS;  // band * POOLS + pool
constexpr int STRIP_ROWS = strips_cpu::ROWS;
constexpr int GROUP = 4;     // channels reduced together: their maxima are loaded and stored once
constexpr int LINE_PX = 16;  // of a cache line

struct Image {
    const float* x;
    int channels, height, width;

    const float* row(int channel, int y) const {
        return x + (static_cast<size_t>(channel) * height + y) * width;
    }
};

void prefetch_row(const float* row, int width) {
    for (int i = 0; i < width; i += LINE_PX) __builtin_prefetch(row + i);
}

// What `raise` keeps for a row: maxima of the doubled bands and the sum over the channels so far.
struct Pools {
    float* __restrict most[BANDS];
    float* __restrict sum;
};

// Raise the pools of pixels i, i + 1, ... (a vector T of them) by `Count` channels. Pixel -1 of every
// row is outside the image: zero.
template <typename T, int Count>
inline __attribute__((always_inline)) void raise_at(const float* const* above,
                                                    const float* const* here, int i, bool is_first,
                                                    const Pools& pools) {
    T most[BANDS], sum, above_k, here_k, above_left, left;
    for (int band = 0; band < BANDS; ++band) load(pools.most[band] + i, most[band]);
    load(pools.sum + i, sum);
#pragma GCC unroll 4
    for (int k = 0; k < Count; ++k) {
        load(above[k] + i, above_k);
        load(here[k] + i, here_k);
        if (is_first) {
            shift_in_zero(above_k, above_left);
            shift_in_zero(here_k, left);
        } else {
            load(above[k] + i - 1, above_left);
            load(here[k] + i - 1, left);
        }
        const Doubled<T> band = doubled_bands(above_left, above_k, left, here_k);
        most[0] = band.lh > most[0] ? band.lh : most[0];
        most[1] = band.hl > most[1] ? band.hl : most[1];
        most[2] = band.hh > most[2] ? band.hh : most[2];
        most[3] = band.ll > most[3] ? band.ll : most[3];
        sum += here_k;
    }
    for (int band = 0; band < BANDS; ++band) store(most[band], pools.most[band] + i);
    store(sum, pools.sum + i);
}

template <int Count>
inline __attribute__((always_inline)) void raise(const float* const* above,
                                                 const float* const* here, int width,
                                                 const Pools& pools) {
    int i = 0;
    if (width >= LANES) raise_at<Pixels, Count>(above, here, 0, true, pools), i = LANES;
    for (; i + LANES <= width; i += LANES) raise_at<Pixels, Count>(above, here, i, false, pools);
    if (i == 0) raise_at<float, Count>(above, here, 0, true, pools), i = 1;
    for (; i < width; ++i) raise_at<float, Count>(above, here, i, false, pools);
}

// Pool rows [begin, end) of the image into the maps, from row `first` of these on. Row 0 of `sums`
// holds the sums over the channels of the row above and takes those of row end - 1; it has
// STRIP_ROWS + HALO_ROWS + 1 rows. Returns whether the pixels are finite.
IRSTD_CLONES bool pool_rows(const Image& image, int begin, int end, int first, const float* zeros,
                            Maps& maps, float* sums) {
    const int width = image.width, count = end - begin;
    const auto most = [&](int band, int row) {
        return maps.row(band * POOLS, first + row);
    };
    for (int row = 0; row < count; ++row)
        for (int band = 0; band < BANDS; ++band)
            std::fill_n(most(band, row), width, -FLT_MAX);
    std::fill_n(sums + width, static_cast<size_t>(count) * width, 0.0f);
    for (int channel = 0; channel < image.channels;) {
        const int group = image.channels - channel >= GROUP ? GROUP : 1;
        for (int row = 0; row < count; ++row) {
            const int y = begin + row;
            const float *above[GROUP], *here[GROUP];
            for (int k = 0; k < group; ++k) {
                here[k] = image.row(channel + k, y);
                above[k] = y > 0 ? image.row(channel + k, y - 1) : zeros;
                if (channel + group + k < image.channels)
                    prefetch_row(image.row(channel + group + k, y), width);
            }
            const Pools pools = {{most(0, row), most(1, row), most(2, row), most(3, row)},
                                 sums + static_cast<size_t>(row + 1) * width};
            if (group == GROUP)
                raise<GROUP>(above, here, width, pools);
            else
                raise<1>(above, here, width, pools);
        }
        channel += group;
    }
    // The mean commutes with the filters: the mean of a band is the band of the mean.
    const float half = 0.5f, share = half / static_cast<float>(image.channels);
    bool is_finite = true;
    for (int row = 0; row < count; ++row) {
        const float* above = sums + static_cast<size_t>(row) * width;
        const float* here = above + width;
        float *mean[BANDS], *peak[BANDS];
        for (int band = 0; band < BANDS; ++band) {
            mean[band] = maps.row(band * POOLS + 1, first + row);
            peak[band] = most(band, row);
        }
        for (int i = 0; i < width; ++i) {
            const Doubled<float> band =
                doubled_bands(i ? above[i - 1] : 0.0f, above[i], i ? here[i - 1] : 0.0f, here[i]);
            mean[0][i] = share * band.lh, mean[1][i] = share * band.hl;
            mean[2][i] = share * band.hh, mean[3][i] = share * band.ll;
            is_finite &= std::fabs(here[i]) <= FLT_MAX;
        }
        for (int b = 0; b < BANDS; ++b)
            for (int i = 0; i < width; ++i) peak[b][i] *= half;
    }
    std::copy_n(sums + static_cast<size_t>(count) * width, width, sums);
    return is_finite;
}

// The sums of the sigmoids of the four gates of a strip: (STRIP_ROWS, width).
IRSTD_CLONES void gate_strip(Maps& maps, int width, const float* weight, const float* bias,
                             float* __restrict logit, float* __restrict gate) {
    const int size = STRIP_ROWS * width;
    std::fill_n(gate, size, 0.0f);
    for (int band = 0; band < BANDS; ++band) {
        std::fill_n(logit, size, bias[band]);
        for (int pool = 0; pool < POOLS; ++pool) {
            const int plane = band * POOLS + pool;
            gate7x7::correlate(maps.row(plane, 0) - REACH_PX, maps.stride,
                               weight + plane * KERNEL_PX * KERNEL_PX, width, logit, width);
        }
        for (int i = 0; i < size; ++i) gate[i] += sigmoid(logit[i]);
    }
}

// out = x * gate. The result is larger than the cache: where it is aligned it goes past it.
IRSTD_CLONES void multiply(const float* __restrict x, const float* __restrict gate, int size,
                           float* __restrict out) {
    int i = 0;
#if defined(__SSE2__)
    if (reinterpret_cast<uintptr_t>(out) % 16 == 0)
        for (; i + 4 <= size; i += 4)
            _mm_stream_ps(out + i, _mm_mul_ps(_mm_loadu_ps(x + i), _mm_loadu_ps(gate + i)));
#endif
    for (; i < size; ++i) out[i] = x[i] * gate[i];
}

// Rows [begin, end) of one image. Returns whether what they depend on is finite.
bool gate_rows(const Image& image, const float* weight, const float* bias, float* out, int begin,
               int end) {
    const int width = image.width, height = image.height;
    Maps maps(PLANES, width);
    std::vector<float> zeros(width), logit(STRIP_ROWS * width), gate(STRIP_ROWS * width);
    std::vector<float> sums(static_cast<size_t>(STRIP_ROWS + HALO_ROWS + 1) * width);
    const int above = begin - REACH_PX - 1;  // of the first row that is pooled
    if (above >= 0)
        for (int channel = 0; channel < image.channels; ++channel)
            for (int i = 0; i < width; ++i) sums[i] += image.row(channel, above)[i];
    const auto pool = [&](int first, int last, int row) {
        return pool_rows(image, first, last, row, zeros.data(), maps, sums.data());
    };
    const auto weigh = [&](int y, int rows) {
        gate_strip(maps, width, weight, bias, logit.data(), gate.data());
        const int size = rows * width;
        for (int channel = 0; channel < image.channels; ++channel) {
            if (channel + 1 < image.channels) prefetch_row(image.row(channel + 1, y), size);
            multiply(image.row(channel, y), gate.data(), size,
                     out + (static_cast<size_t>(channel) * height + y) * width);
        }
    };
    const bool is_finite = strips_cpu::walk(maps, height, begin, end, pool, weigh);
#if defined(__SSE2__)
    _mm_sfence();
#endif
    return is_finite;
}

}  // namespace
}  // namespace irstd::haar_gate

int irstd_haar_gate_f32(const float* x, const float* weight, const float* bias, float* out,
                        int images, int channels, int height, int width, int begin, int end) {
    using namespace irstd::haar_gate;
    return irstd::status_of([=] {
        const size_t size = static_cast<size_t>(channels) * height * width;
        bool is_finite = irstd::are_finite(weight, WEIGHTS) && irstd::are_finite(bias, BANDS);
        for (int image = 0; image < images; ++image)
            is_finite &= gate_rows({x + image * size, channels, height, width}, weight, bias,
                                   out + image * size, begin, end);
        return is_finite;
    });
}
