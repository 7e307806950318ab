// The Haar gate on a GPU, one kernel.
//
// Memory plan. Compulsory traffic is one read of x and one write of out. A block walks along a strip
// 128 bytes wide through all channels, four rows a step:
//   pool      reads four rows of x from DRAM, once, in 16-byte vectors, and the row above them from
//             L1; maxima and sums stay in registers, are reduced over the lanes that share the
//             channels, and go to a ring of pooled rows in shared memory;
//   gate      7x7 taps from that ring, weights from shared memory;
//   multiply  reads x again, three to seven rows after it was pooled: from L1 or L2, whatever the
//             size of x, because what lies between is 8 rows x 160 bytes x channels of each block
//             (80 KB for 64 channels, 2.6 MB for the 32 blocks of an Orin with 16 multiprocessors,
//             whose L2 holds 4 MB). Stores are marked as read by nobody.
// Sideways the strips share a vector of each row, which neighbours read at the same time. Lengthwise
// a strip is cut into segments that share 7 rows; even ones are walked downwards and odd ones upwards,
// so that two neighbours are at their common rows at the same time, and one of them reads the cache.
// No block waits for another.
#include <cuda_fp16.h>

#include "haar_gate_launch.hpp"

namespace irstd::haar_gate {
namespace {

constexpr unsigned ALL_LANES = 0xffffffffu;
constexpr int PACKS = 4;  // registers of a vector
constexpr float LEAST = -3.402823466e38f;  // of half, minus infinity

// Pixels of a row that fill one register and are added and compared together: a float or two halves.
template <class T> struct PackOf;
template <> struct PackOf<float> { using Type = float; };
template <> struct PackOf<__half> { using Type = __half2; };
template <class T> using Pack = typename PackOf<T>::Type;

__device__ __forceinline__ float larger(float a, float b) { return fmaxf(a, b); }
__device__ __forceinline__ __half2 larger(__half2 a, __half2 b) { return __hmax2(a, b); }

__device__ __forceinline__ float to_the_left(float before, float) { return before; }
__device__ __forceinline__ __half2 to_the_left(__half2 before, __half2 pack) {
    return __halves2half2(__high2half(before), __low2half(pack));
}

// Pixels from and to float32.
__device__ __forceinline__ void unpack(float pack, float* pixels) { pixels[0] = pack; }
__device__ __forceinline__ void unpack(__half2 pack, float* pixels) {
    const float2 both = __half22float2(pack);
    pixels[0] = both.x, pixels[1] = both.y;
}
__device__ __forceinline__ void pack_up(const float* pixels, float& pack) { pack = pixels[0]; }
__device__ __forceinline__ void pack_up(const float* pixels, __half2& pack) {
    pack = __floats2half2_rn(pixels[0], pixels[1]);
}

template <class To, class From>
__device__ __forceinline__ To bits_of(From from) {
    static_assert(sizeof(To) == sizeof(From), "");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

// Share out over two lanes what both hold a part of: one keeps the first half of the values, the
// other the second, each combined with its partner's.
template <int Count, class Value, class Combine>
__device__ __forceinline__ void halve(Value* values, int lanes_apart, bool is_second,
                                      Combine combine) {
#pragma unroll
    for (int i = 0; i < Count / 2; ++i) {
        Value keep = values[i], give = values[i + Count / 2];
        if (is_second) keep = values[i + Count / 2], give = values[i];
        values[i] = combine(keep, __shfl_xor_sync(ALL_LANES, give, lanes_apart));
    }
}

// What a block does. Pooled rows outside the image are zero: the gates see zeros around.
template <class T>
struct Block {
    using Shared = Layout<sizeof(T)>;
    static constexpr int VECTOR_PX = Shared::VECTOR_PX, PACK_PX = VECTOR_PX / PACKS;

    const T* x;  // the image
    T* out;
    int channels, height, width;
    int first_row, last_row;  // of the segment; the last one is not in it
    int strip_px;
    float* shared;

    __device__ bool is_aligned() const { return width % VECTOR_PX == 0; }
    __device__ size_t plane() const { return static_cast<size_t>(height) * width; }
    __device__ bool is_inside(int row, int px) const {
        return row >= 0 && row < height && px >= 0 && px < width;
    }

    // The first row that a step pools, and its place in the ring.
    __device__ int pooled_row(int step) const {
        return first_row - REACH_PX - LEAD_ROWS + step * STEP_ROWS;
    }
    __device__ static int ring_row(int step) { return step % RING_STEPS * STEP_ROWS; }

    // A vector of a row, after the pack before it; zeros outside the image.
    __device__ __forceinline__ void load(const T* row, bool is_row, int px,
                                         Pack<T> (&packs)[PACKS + 1]) const {
        const float zeros[PACK_PX] = {};
#pragma unroll
        for (Pack<T>& pack : packs) pack_up(zeros, pack);
        if (!is_row) return;
        if (is_aligned()) {
            if (px > 0) packs[0] = *reinterpret_cast<const Pack<T>*>(row + px - PACK_PX);
            if (px < 0 || px >= width) return;
            const uint4 vector = *reinterpret_cast<const uint4*>(row + px);
            packs[1] = bits_of<Pack<T>>(vector.x), packs[2] = bits_of<Pack<T>>(vector.y);
            packs[3] = bits_of<Pack<T>>(vector.z), packs[4] = bits_of<Pack<T>>(vector.w);
        } else {
#pragma unroll
            for (int i = 0; i <= PACKS; ++i) {
                float pixels[PACK_PX];
#pragma unroll
                for (int k = 0; k < PACK_PX; ++k) {
                    const int at = px + (i - 1) * PACK_PX + k;
                    pixels[k] = at >= 0 && at < width ? static_cast<float>(row[at]) : 0.0f;
                }
                pack_up(pixels, packs[i]);
            }
        }
    }

    // Maxima of the bands and mean of x over the channels for the rows of a step.
    __device__ void pool(int step) const {
        const int lane = threadIdx.x % 32, group = lane / WARP_VECTORS;
        const int item = threadIdx.x / 32 * WARP_VECTORS + lane % WARP_VECTORS;
        const int row = item / ROW_VECTORS, vector = item % ROW_VECTORS;
        const int y = pooled_row(step) + row, px = strip_px + (vector - 1) * VECTOR_PX;
        Pack<T> most[BANDS][PACKS];
        float sums[VECTOR_PX] = {};
        const float least[] = {LEAST, LEAST};
#pragma unroll
        for (int i = 0; i < BANDS * PACKS; ++i) pack_up(least, most[i / PACKS][i % PACKS]);
        // Of the row above the first that the gates reach, only the mean is needed.
        const bool is_pooled = y >= max(first_row - REACH_PX - 1, 0) && y < min(last_row + REACH_PX, height);
        const bool has_above = y >= max(first_row - REACH_PX, 1);
        if (is_pooled && px < width) {
            const T* here_row = x + group * plane() + static_cast<size_t>(y) * width;
#pragma unroll 2
            for (int channel = group; channel < channels; channel += CHANNEL_GROUPS) {
                Pack<T> above[PACKS + 1], here[PACKS + 1];
                load(here_row - width, has_above, px, above);
                load(here_row, true, px, here);
#pragma unroll
                for (int i = 0; i < PACKS; ++i) {
                    const Doubled<Pack<T>> band =
                        doubled_bands(to_the_left(above[i], above[i + 1]), above[i + 1],
                                      to_the_left(here[i], here[i + 1]), here[i + 1]);
                    most[0][i] = larger(most[0][i], band.lh);
                    most[1][i] = larger(most[1][i], band.hl);
                    most[2][i] = larger(most[2][i], band.hh);
                    most[3][i] = larger(most[3][i], band.ll);
                    float pixels[PACK_PX];
                    unpack(here[i + 1], pixels);
#pragma unroll
                    for (int k = 0; k < PACK_PX; ++k) sums[i * PACK_PX + k] += pixels[k];
                }
                here_row += CHANNEL_GROUPS * plane();
            }
        }
        reduce(most, sums, group);
        const int pack = group / 2, first = pack * PACK_PX;
        const int at = (ring_row(step) + row) * Shared::ROW_PX + vector * VECTOR_PX + first;
        const float half = 0.5f, share = 1.0f / static_cast<float>(channels);
#pragma unroll
        for (int band = 0; band < BANDS; ++band) {
            float pixels[PACK_PX];
            unpack(most[band][0], pixels);
#pragma unroll
            for (int k = 0; k < PACK_PX; ++k)
                if (group % 2 == 0)
                    shared[band * POOLS * Shared::PLANE + at + k] =
                        is_inside(y, px + first + k) ? half * pixels[k] : 0.0f;
        }
#pragma unroll
        for (int k = 0; k < PACK_PX; ++k)
            if (group % 2) shared[Shared::MEANS + at + k] = share * sums[k];
    }

    // Combine the groups of channels: two lanes are left with the same pack, which is group / 2.
    __device__ static void reduce(Pack<T> (&most)[BANDS][PACKS], float (&sums)[VECTOR_PX], int group) {
        const auto maximum = [](Pack<T> a, Pack<T> b) { return larger(a, b); };
        const auto sum = [](float a, float b) { return a + b; };
#pragma unroll
        for (int band = 0; band < BANDS; ++band) {
            halve<PACKS>(most[band], 16, group & 4, maximum);
            halve<PACKS / 2>(most[band], 8, group & 2, maximum);
            most[band][0] = larger(most[band][0], __shfl_xor_sync(ALL_LANES, most[band][0], 4));
        }
        halve<VECTOR_PX>(sums, 16, group & 4, sum);
        halve<VECTOR_PX / 2>(sums, 8, group & 2, sum);
#pragma unroll
        for (int k = 0; k < PACK_PX; ++k) sums[k] += __shfl_xor_sync(ALL_LANES, sums[k], 4);
    }

    // The mean commutes with the filters: the mean of a band is the band of the mean. A row needs the
    // one above: on the way up, the first row of a step waits for the next step. The first row of all
    // stays wrong; it is one of LEAD_ROWS.
    __device__ void filter_means(int step, bool is_upwards) const {
        const float half = 0.5f;
        const float* means = shared + Shared::MEANS;
        for (int i = threadIdx.x; i < STEP_ROWS * Shared::ROW_PX; i += THREADS) {
            const int row = i / Shared::ROW_PX + is_upwards, column = i % Shared::ROW_PX;
            if (column == 0) continue;  // beyond what the gates reach
            const int here = (ring_row(step) + row) % RING_ROWS * Shared::ROW_PX + column;
            const int above =
                (ring_row(step) + row + RING_ROWS - 1) % RING_ROWS * Shared::ROW_PX + column;
            const Doubled<float> band =
                doubled_bands(means[above - 1], means[above], means[here - 1], means[here]);
            const bool inside = is_inside(pooled_row(step) + row, strip_px - VECTOR_PX + column);
            const float values[BANDS] = {band.lh, band.hl, band.hh, band.ll};
#pragma unroll
            for (int b = 0; b < BANDS; ++b)
                shared[(b * POOLS + 1) * Shared::PLANE + here] = inside ? half * values[b] : 0.0f;
        }
    }

    // The sum of the four gates for the rows of which `step` pooled the first that they reach. Four
    // neighbouring lanes take the four bands of four neighbouring pixels.
    __device__ void gate(int step, const float* bias) const {
        constexpr int QUAD_PX = 4, QUADS = Shared::STRIP_PX / QUAD_PX;
        static_assert(STEP_ROWS * QUADS * BANDS <= THREADS && BANDS == QUAD_PX, "");
        if (threadIdx.x >= STEP_ROWS * QUADS * BANDS) return;
        const int band = threadIdx.x % BANDS, quad = threadIdx.x / BANDS % QUADS;
        const int row = threadIdx.x / BANDS / QUADS;
        const float* weights = shared + Shared::WEIGHTS + band * Shared::BAND_WEIGHTS;
        float logits[QUAD_PX];
#pragma unroll
        for (float& logit : logits) logit = bias[band];
        for (int pool = 0; pool < POOLS; ++pool) {
            // One pixel left of what the taps reach, so that loads are 16 bytes.
            const float* map = shared + (band * POOLS + pool) * Shared::PLANE + VECTOR_PX -
                               QUAD_PX + quad * QUAD_PX;
#pragma unroll
            for (int dy = 0; dy < KERNEL_PX; ++dy) {
                const int at = ring_row(step) + LEAD_ROWS + row + dy;
                const float* pixels = map + (at < RING_ROWS ? at : at - RING_ROWS) * Shared::ROW_PX;
                float reached[3 * QUAD_PX], taps[2 * QUAD_PX];
                copy_vectors<3>(pixels, reached);
                copy_vectors<2>(weights, taps);
                weights += Shared::WEIGHT_ROW;
#pragma unroll
                for (int dx = 0; dx < KERNEL_PX; ++dx)
#pragma unroll
                    for (int k = 0; k < QUAD_PX; ++k) logits[k] += taps[dx] * reached[k + dx + 1];
            }
        }
        float own = 0.0f;
#pragma unroll
        for (int k = 0; k < QUAD_PX; ++k) {
            float total = __fdividef(1.0f, 1.0f + __expf(-logits[k]));
            total += __shfl_xor_sync(ALL_LANES, total, 1);
            total += __shfl_xor_sync(ALL_LANES, total, 2);
            if (k == band) own = total;
        }
        shared[Shared::GATES + row * Shared::STRIP_PX + quad * QUAD_PX + band] = own;
    }

    // out = x * gate for the rows that were gated. A lane keeps its vector of the gate for all channels.
    __device__ void multiply(int step) const {
        const int vector = threadIdx.x % STRIP_VECTORS, row = threadIdx.x / STRIP_VECTORS % STEP_ROWS;
        const int y = pooled_row(step) + LEAD_ROWS + REACH_PX + row;
        const int px = strip_px + vector * VECTOR_PX;
        if (y >= last_row || px >= width) return;
        float gates[VECTOR_PX];
        copy_vectors<VECTOR_PX / 4>(
            shared + Shared::GATES + row * Shared::STRIP_PX + vector * VECTOR_PX, gates);
        const int first = threadIdx.x / (STRIP_VECTORS * STEP_ROWS);
        size_t at = first * plane() + static_cast<size_t>(y) * width + px;
#pragma unroll 4
        for (int channel = first; channel < channels; channel += WARPS, at += WARPS * plane()) {
            if (is_aligned()) {
                const uint4 vector = *reinterpret_cast<const uint4*>(x + at);
                const uint4 product = {times(vector.x, gates), times(vector.y, gates + PACK_PX),
                                       times(vector.z, gates + 2 * PACK_PX),
                                       times(vector.w, gates + 3 * PACK_PX)};
                __stcs(reinterpret_cast<uint4*>(out + at), product);
            } else {
#pragma unroll
                for (int k = 0; k < VECTOR_PX; ++k)
                    if (px + k < width) out[at + k] = static_cast<float>(x[at + k]) * gates[k];
            }
        }
    }

    __device__ static __forceinline__ unsigned times(unsigned bits, const float* gates) {
        float pixels[PACK_PX];
        unpack(bits_of<Pack<T>>(bits), pixels);
#pragma unroll
        for (int k = 0; k < PACK_PX; ++k) pixels[k] *= gates[k];
        Pack<T> pack;
        pack_up(pixels, pack);
        return bits_of<unsigned>(pack);
    }

    template <int Count>
    __device__ static __forceinline__ void copy_vectors(const float* from, float* to) {
#pragma unroll
        for (int i = 0; i < Count; ++i) {
            const float4 four = reinterpret_cast<const float4*>(from)[i];
            to[4 * i] = four.x, to[4 * i + 1] = four.y, to[4 * i + 2] = four.z, to[4 * i + 3] = four.w;
        }
    }

    __device__ void run(const float* weight, const float* bias) const {
        for (int i = threadIdx.x; i < WEIGHTS; i += THREADS) {
            const int column = i % KERNEL_PX, row = i / KERNEL_PX % (POOLS * KERNEL_PX);
            const int band = i / (POOLS * KERNEL_PX * KERNEL_PX);
            shared[Shared::WEIGHTS + band * Shared::BAND_WEIGHTS + row * Shared::WEIGHT_ROW + column] =
                weight[i];
        }
        const bool is_upwards = blockIdx.y % 2;
        const int count = (last_row - first_row + STEP_ROWS - 1) / STEP_ROWS + RING_STEPS - 1;
        for (int i = 0; i < count; ++i) {
            const int step = is_upwards ? count - 1 - i : i;
            pool(step);
            __syncthreads();
            filter_means(step, is_upwards);
            __syncthreads();
            if (i < RING_STEPS - 1) continue;
            const int first = is_upwards ? step : step - (RING_STEPS - 1);
            gate(first, bias);
            __syncthreads();
            multiply(first);  // while other warps pool the next rows
        }
    }
};

template <class T>
__device__ __forceinline__ void run(const T* x, const float* weight, const float* bias, int channels,
                                    int height, int width, int segment_rows, T* out, float* shared) {
    const size_t image = static_cast<size_t>(blockIdx.z) * channels * height * width;
    const int first_row = blockIdx.y * segment_rows;
    Block<T>{x + image,
             out + image,
             channels,
             height,
             width,
             first_row,
             min(first_row + segment_rows, height),
             static_cast<int>(blockIdx.x) * Layout<sizeof(T)>::STRIP_PX,
             shared}
        .run(weight, bias);
}

}  // namespace
}  // namespace irstd::haar_gate

// x and out (images, channels, height, width), 16-byte aligned; weight (4, 2, 7, 7), bias (4). Launch
// and segment_rows come from irstd::haar_gate::plan.
extern "C" __global__ void __launch_bounds__(irstd::haar_gate::THREADS,
                                             irstd::haar_gate::BLOCKS_PER_MULTIPROCESSOR)
    irstd_haar_gate_f32(const float* __restrict__ x, const float* __restrict__ weight,
                        const float* __restrict__ bias, int channels, int height, int width,
                        int segment_rows, float* __restrict__ out) {
    extern __shared__ float4 shared[];
    irstd::haar_gate::run(x, weight, bias, channels, height, width, segment_rows, out, &shared[0].x);
}

// The same in half storage, |x| at most 16000: sums of four pixels stay in half. Means, gates and the
// product are float32.
extern "C" __global__ void __launch_bounds__(irstd::haar_gate::THREADS,
                                             irstd::haar_gate::BLOCKS_PER_MULTIPROCESSOR)
    irstd_haar_gate_f16(const __half* __restrict__ x, const float* __restrict__ weight,
                        const float* __restrict__ bias, int channels, int height, int width,
                        int segment_rows, __half* __restrict__ out) {
    extern __shared__ float4 shared[];
    irstd::haar_gate::run(x, weight, bias, channels, height, width, segment_rows, out, &shared[0].x);
}
