// The Haar gate on a CPU. One pass down the image: a row of x is read from memory once, reduced
// over the channels, and multiplied a few rows later, while it is still in the cache.
#include <algorithm>
#include <vector>

#include "haar_gate.hpp"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace irstd::haar_gate {
namespace {

constexpr int RING_ROWS = 8;   // a power of two, at least KERNEL_PX
constexpr int PLANES = BANDS * POOLS;
constexpr int GROUP = 4;       // channels reduced together: their maxima are loaded and stored once
constexpr int BLOCK_PX = 64;   // pixels of the gates computed together

struct Image {
    const float* x;
    int channels, height, width;

    const float* row(int channel, int y) const {
        return x + (static_cast<size_t>(channel) * height + y) * width;
    }
};

// Rows of the pooled bands around the current one, with zeros to both sides.
class Ring {
public:
    explicit Ring(int width)
        : stride_(width + 2 * REACH_PX),
          values_(static_cast<size_t>(PLANES) * RING_ROWS * stride_),
          zeros_(stride_) {}

    // The first pixel of a row; `plane` is band * POOLS + pool.
    float* row(int plane, int y) {
        const int slot = y & (RING_ROWS - 1);
        return values_.data() + (static_cast<size_t>(plane) * RING_ROWS + slot) * stride_ + REACH_PX;
    }

    // REACH_PX pixels before the first one.
    const float* padded_row(int plane, int y, int height) {
        return y < 0 || y >= height ? zeros_.data() : row(plane, y) - REACH_PX;
    }

private:
    size_t stride_;
    std::vector<float> values_, zeros_;
};

// Raise the maxima of the doubled bands by `Count` channels, and add these to their sum. Pixel -1
// of every row is outside the image: zero.
template <int Count>
inline __attribute__((always_inline)) void raise(
    const float* const* above, const float* const* here, int width, float* __restrict lh,
    float* __restrict hl, float* __restrict hh, float* __restrict ll, float* __restrict sum) {
    const auto pixel = [&](int i, bool is_first) __attribute__((always_inline)) {
        float most_lh = lh[i], most_hl = hl[i], most_hh = hh[i], most_ll = ll[i], total = sum[i];
        for (int k = 0; k < Count; ++k) {
            const Doubled band = doubled_bands(is_first ? 0.0f : above[k][i - 1], above[k][i],
                                               is_first ? 0.0f : here[k][i - 1], here[k][i]);
            most_lh = band.lh > most_lh ? band.lh : most_lh;
            most_hl = band.hl > most_hl ? band.hl : most_hl;
            most_hh = band.hh > most_hh ? band.hh : most_hh;
            most_ll = band.ll > most_ll ? band.ll : most_ll;
            total += here[k][i];
        }
        lh[i] = most_lh, hl[i] = most_hl, hh[i] = most_hh, ll[i] = most_ll, sum[i] = total;
    };
    pixel(0, true);
#pragma GCC ivdep
    for (int i = 1; i < width; ++i) pixel(i, false);
}

// Pool the bands of row y over the channels into the ring. `sums` holds the sums over the channels
// of the row above and takes those of row y. Returns whether all of row y is finite.
IRSTD_CLONES bool pool_row(const Image& image, int y, const float* zeros, Ring& ring,
                           float* sums, float* scratch) {
    const int width = image.width;
    float* most[BANDS];
    for (int band = 0; band < BANDS; ++band) {
        most[band] = ring.row(band * POOLS, y);
        std::fill_n(most[band], width, -3.402823466e38f);
    }
    float* sum = scratch;
    std::fill_n(sum, width, 0.0f);
    const float *above[GROUP], *here[GROUP];
    for (int first = 0; first < image.channels;) {
        const int count = image.channels - first >= GROUP ? GROUP : 1;
        for (int k = 0; k < count; ++k) {
            here[k] = image.row(first + k, y);
            above[k] = y > 0 ? image.row(first + k, y - 1) : zeros;
        }
        if (count == GROUP)
            raise<GROUP>(above, here, width, most[0], most[1], most[2], most[3], sum);
        else
            raise<1>(above, here, width, most[0], most[1], most[2], most[3], sum);
        first += count;
    }
    // The mean commutes with the filters: the mean of a band is the band of the mean.
    const float half = 0.5f, share = half / static_cast<float>(image.channels);
    float* mean[BANDS];
    for (int band = 0; band < BANDS; ++band) mean[band] = ring.row(band * POOLS + 1, y);
    for (int i = 0; i < width; ++i) {
        const Doubled band = doubled_bands(i ? sums[i - 1] : 0.0f, sums[i], i ? sum[i - 1] : 0.0f,
                                           sum[i]);
        mean[0][i] = share * band.lh, mean[1][i] = share * band.hl;
        mean[2][i] = share * band.hh, mean[3][i] = share * band.ll;
        for (int b = 0; b < BANDS; ++b) most[b][i] *= half;
    }
    std::copy_n(sum, width, sums);
    float no_number = 0.0f;  // 0 * sum is NaN for NaN and for infinity
    for (int i = 0; i < width; ++i) no_number += 0.0f * sum[i];
    return no_number == 0.0f;
}

// The sum of the sigmoids of the four gates of row y.
IRSTD_CLONES void gate_row(Ring& ring, int y, int height, int width, const float* weight,
                           const float* bias, float* __restrict gate) {
    std::fill_n(gate, width, 0.0f);
    for (int band = 0; band < BANDS; ++band) {
        for (int start = 0; start < width; start += BLOCK_PX) {
            const int length = std::min(BLOCK_PX, width - start);
            float logit[BLOCK_PX];
            std::fill_n(logit, BLOCK_PX, bias[band]);
            for (int pool = 0; pool < POOLS; ++pool) {
                const int plane = band * POOLS + pool;
                for (int dy = 0; dy < KERNEL_PX; ++dy) {
                    const float* in = ring.padded_row(plane, y + dy - REACH_PX, height) + start;
                    const float* w = weight + (plane * KERNEL_PX + dy) * KERNEL_PX;
                    for (int i = 0; i < length; ++i) {
                        float value = logit[i];
                        for (int dx = 0; dx < KERNEL_PX; ++dx) value += w[dx] * in[i + dx];
                        logit[i] = value;
                    }
                }
            }
            for (int i = 0; i < length; ++i) gate[start + i] += sigmoid(logit[i]);
        }
    }
}

// out = x * gate. The result is larger than the cache: where it is aligned it goes past it.
IRSTD_CLONES void multiply_row(const float* __restrict x, const float* __restrict gate, int width,
                               float* __restrict out) {
    int i = 0;
#if defined(__SSE2__)
    if (reinterpret_cast<uintptr_t>(out) % 16 == 0)
        for (; i + 4 <= width; i += 4)
            _mm_stream_ps(out + i, _mm_mul_ps(_mm_loadu_ps(x + i), _mm_loadu_ps(gate + i)));
#endif
    for (; i < width; ++i) out[i] = x[i] * gate[i];
}

// Rows [begin, end) of one image. Returns whether what they depend on is finite.
bool gate_rows(const Image& image, const float* weight, const float* bias, float* out, int begin,
               int end) {
    const int width = image.width, height = image.height;
    Ring ring(width);
    std::vector<float> zeros(width), sums(width), scratch(width), gate(width);
    const int first = std::max(begin - REACH_PX, 0), last = std::min(end + REACH_PX, height);
    if (first > 0)
        for (int channel = 0; channel < image.channels; ++channel)
            for (int i = 0; i < width; ++i) sums[i] += image.row(channel, first - 1)[i];
    int pooled = first;
    bool is_finite = true;
    for (int y = begin; y < end; ++y) {
        for (; pooled < std::min(y + REACH_PX + 1, last); ++pooled)
            is_finite &=
                pool_row(image, pooled, zeros.data(), ring, sums.data(), scratch.data());
        gate_row(ring, y, height, width, weight, bias, gate.data());
        for (int channel = 0; channel < image.channels; ++channel)
            multiply_row(image.row(channel, y), gate.data(), width,
                         out + (static_cast<size_t>(channel) * height + y) * width);
    }
#if defined(__SSE2__)
    _mm_sfence();
#endif
    return is_finite;
}

}  // namespace
}  // namespace irstd::haar_gate

// Rows [begin, end) of all images: x and out (images, channels, height, width) float32, weight
// (4, 2, 7, 7), bias (4). Returns 0, or 1 if x is not finite.
IRSTD_EXPORT int irstd_haar_gate_f32(const float* x, const float* weight, const float* bias,
                                     float* out, int images, int channels, int height, int width,
                                     int begin, int end) {
    const size_t size = static_cast<size_t>(channels) * height * width;
    bool is_finite = true;
    for (int image = 0; image < images; ++image)
        is_finite &= irstd::haar_gate::gate_rows({x + image * size, channels, height, width},
                                                 weight, bias, out + image * size, begin, end);
    return is_finite ? 0 : 1;
}
