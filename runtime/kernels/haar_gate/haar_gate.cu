// The Haar gate on a GPU, one kernel.
//
// Memory plan. Compulsory traffic is one read of x and one write of out. A block walks along a
// strip 128 bytes wide through all channels, four rows a step:
//   pool      reads four rows of x from DRAM, once, in 16-byte vectors, and the row above them from
//             L1; maxima and sums stay in registers, are reduced over the lanes that share the
//             channels, and go to a ring of pooled rows in shared memory;
//   gate      7x7 taps from that ring, weights from shared memory;
//   multiply  reads x again, three to seven rows after it was pooled: from L1 or L2, whatever the
//             size of x, because what lies between is 8 rows x 160 bytes x channels of each block
//             (80 KB for 64 channels, 2.6 MB for the 32 blocks of an Orin with 16 multiprocessors,
//             whose L2 holds 4 MB). Stores are marked as read by nobody.
// Sideways the strips share a vector of each row, which neighbours read at the same time.
// Lengthwise a strip is cut into segments that share 7 rows, which neighbours again read at the
// same time (Walk). No block waits for another.
#include "../strips_device.hpp"
#include "haar_gate_launch.hpp"

namespace irstd::haar_gate {
namespace {

using namespace strips;

__device__ __forceinline__ float to_the_left(float before, float) { return before; }
__device__ __forceinline__ __half2 to_the_left(__half2 before, __half2 pack) {
    return __halves2half2(__high2half(before), __low2half(pack));
}

// What a block does. Pooled rows outside the image are zero: the gates see zeros around.
template <class T>
struct Block {
    using Shared = Layout<sizeof(T)>;
    static constexpr int VECTOR_PX = Shared::VECTOR_PX, PACK_PX = VECTOR_PX / PACKS;

    const T* x;  // the image
    T* out;
    int channels, height, width;
    Walk walk;
    int strip_px;
    float* shared;

    __device__ bool is_aligned() const { return width % VECTOR_PX == 0; }
    __device__ size_t plane() const { return static_cast<size_t>(height) * width; }
    __device__ bool is_inside(int row, int px) const {
        return row >= 0 && row < height && px >= 0 && px < width;
    }

    // A vector of a row, after the pack before it; zeros outside the image.
    __device__ __forceinline__ void load(const T* row, bool is_row, int px,
                                         Pack<T> (&packs)[PACKS + 1]) const {
        const float zeros[PACK_PX] = {};
#pragma unroll
        for (Pack<T>& pack : packs) pack_up(zeros, pack);
        if (!is_row) return;
        if (is_aligned()) {
            if (px > 0) packs[0] = *reinterpret_cast<const Pack<T>*>(row + px - PACK_PX);
            if (px >= 0 && px < width) load_vector(row + px, packs + 1);
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
        const Share mine = share();
        const int y = walk.pooled_row(step) + mine.row;
        const int px = strip_px + (mine.vector - 1) * VECTOR_PX;
        Pack<T> most[BANDS][PACKS];
        float sums[VECTOR_PX] = {};
        const float least[] = {LEAST, LEAST};
#pragma unroll
        for (int i = 0; i < BANDS * PACKS; ++i) pack_up(least, most[i / PACKS][i % PACKS]);
        // Of the row above the first that the gates reach, only the mean is needed.
        const int top = walk.first_row - REACH_PX, bottom = walk.last_row + REACH_PX;
        const bool has_above = y >= max(top, 1);
        if (y >= max(top - 1, 0) && y < min(bottom, height) && px < width) {
            const T* here_row = x + mine.group * plane() + static_cast<size_t>(y) * width;
#pragma unroll 2
            for (int channel = mine.group; channel < channels; channel += CHANNEL_GROUPS) {
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
#pragma unroll
        for (int band = 0; band < BANDS; ++band)
            reduce_groups<PACKS>(most[band], mine.group, Maximum());
        reduce_groups<VECTOR_PX>(sums, mine.group, Sum());
        // Of the two lanes with the same pack, one stores the maxima and the other the means.
        const int first = mine.group / 2 * PACK_PX;
        const int at =
            (Walk::ring_row(step) + mine.row) * Shared::ROW_PX + mine.vector * VECTOR_PX + first;
        const float half = 0.5f, share = 1.0f / static_cast<float>(channels);
#pragma unroll
        for (int band = 0; band < BANDS; ++band) {
            float pixels[PACK_PX];
            unpack(most[band][0], pixels);
#pragma unroll
            for (int k = 0; k < PACK_PX; ++k)
                if (mine.group % 2 == 0)
                    shared[band * POOLS * Shared::PLANE + at + k] =
                        is_inside(y, px + first + k) ? half * pixels[k] : 0.0f;
        }
#pragma unroll
        for (int k = 0; k < PACK_PX; ++k)
            if (mine.group % 2) shared[Shared::MEANS + at + k] = share * sums[k];
    }

    // The mean commutes with the filters: the mean of a band is the band of the mean. A row needs
    // the one above: on the way up, the first row of a step waits for the next step. The first row
    // of all stays wrong; it is one of LEAD_ROWS.
    __device__ void filter_means(int step) const {
        const float half = 0.5f;
        const float* means = shared + Shared::MEANS;
        for (int i = threadIdx.x; i < STEP_ROWS * Shared::ROW_PX; i += THREADS) {
            const int row = i / Shared::ROW_PX + walk.is_upwards(), column = i % Shared::ROW_PX;
            if (column == 0) continue;  // beyond what the gates reach
            const int ring_row = Walk::ring_row(step) + row;
            const int here = ring_row % RING_ROWS * Shared::ROW_PX + column;
            const int above = (ring_row + RING_ROWS - 1) % RING_ROWS * Shared::ROW_PX + column;
            const Doubled<float> band =
                doubled_bands(means[above - 1], means[above], means[here - 1], means[here]);
            const bool inside =
                is_inside(walk.pooled_row(step) + row, strip_px - VECTOR_PX + column);
            const float values[BANDS] = {band.lh, band.hl, band.hh, band.ll};
#pragma unroll
            for (int b = 0; b < BANDS; ++b)
                shared[(b * POOLS + 1) * Shared::PLANE + here] = inside ? half * values[b] : 0.0f;
        }
    }

    // The sums of the four gates.
    __device__ void gate(int top_step, const float* bias) const {
        using Lane = Quad<Shared, BANDS>;
        static_assert(BANDS == QUAD_PX, "each lane of a quad stores one pixel");
        if (threadIdx.x >= Lane::LANES) return;
        const Lane quad;
        float gates[QUAD_PX], own = 0.0f;
        quad.gate(shared, top_step, bias, gates);
#pragma unroll
        for (int k = 0; k < QUAD_PX; ++k) {
            gates[k] += __shfl_xor_sync(ALL_LANES, gates[k], 1);
            gates[k] += __shfl_xor_sync(ALL_LANES, gates[k], 2);
            if (k == quad.band) own = gates[k];
        }
        shared[Shared::GATES + quad.row * Shared::STRIP_PX + quad.px + quad.band] = own;
    }

    // out = x * gate. A lane keeps its vector of the gate for all channels.
    __device__ void multiply(int top_step) const {
        const int vector = threadIdx.x % STRIP_VECTORS,
                  row = threadIdx.x / STRIP_VECTORS % STEP_ROWS;
        const int y = walk.gated_row(top_step) + row, px = strip_px + vector * VECTOR_PX;
        if (y >= walk.last_row || px >= width) return;
        float gates[VECTOR_PX];
        copy_vectors<VECTOR_PX / 4>(
            shared + Shared::GATES + row * Shared::STRIP_PX + vector * VECTOR_PX, gates);
        const int first = threadIdx.x / (STRIP_VECTORS * STEP_ROWS);
        size_t at = first * plane() + static_cast<size_t>(y) * width + px;
#pragma unroll 4
        for (int channel = first; channel < channels; channel += WARPS, at += WARPS * plane()) {
            if (is_aligned()) {
                Pack<T> packs[PACKS];
                load_vector(x + at, packs);
#pragma unroll
                for (int i = 0; i < PACKS; ++i) {
                    float pixels[PACK_PX];
                    unpack(packs[i], pixels);
#pragma unroll
                    for (int k = 0; k < PACK_PX; ++k) pixels[k] *= gates[i * PACK_PX + k];
                    pack_up(pixels, packs[i]);
                }
                stream_vector(packs, out + at);
            } else {
#pragma unroll
                for (int k = 0; k < VECTOR_PX; ++k)
                    if (px + k < width) out[at + k] = static_cast<float>(x[at + k]) * gates[k];
            }
        }
    }

    __device__ void run(const float* weight, const float* bias) const {
        copy_weights<Shared, BANDS>(weight, shared);
        for (int i = 0; i < walk.steps(); ++i) {
            const int step = walk.step(i);
            pool(step);
            __syncthreads();
            filter_means(step);
            __syncthreads();
            if (i < RING_STEPS - 1) continue;
            gate(walk.top_step(step), bias);
            __syncthreads();
            multiply(walk.top_step(step));  // while other warps pool the next rows
        }
    }
};

template <class T>
__device__ __forceinline__ void run(const T* x, const float* weight, const float* bias,
                                    int channels, int height, int width, int segment_rows, T* out,
                                    float* shared) {
    const size_t image = static_cast<size_t>(blockIdx.z) * channels * height * width;
    const int strip_px = static_cast<int>(blockIdx.x) * Layout<sizeof(T)>::STRIP_PX;
    const Walk walk(height, segment_rows);
    Block<T>{x + image, out + image, channels, height, width, walk, strip_px, shared}.run(weight,
                                                                                          bias);
}

}  // namespace
}  // namespace irstd::haar_gate

// x and out (images, channels, height, width), 16-byte aligned; weight (4, 2, 7, 7), bias (4).
// Launch and segment_rows come from irstd::haar_gate::plan.
extern "C" __global__ void __launch_bounds__(irstd::strips::THREADS,
                                             irstd::strips::BLOCKS_PER_MULTIPROCESSOR)
    irstd_haar_gate_f32(const float* __restrict__ x, const float* __restrict__ weight,
                        const float* __restrict__ bias, int channels, int height, int width,
                        int segment_rows, float* __restrict__ out) {
    extern __shared__ float4 shared[];
    irstd::haar_gate::run(x, weight, bias, channels, height, width, segment_rows, out,
                          &shared[0].x);
}

// The same in half storage, |x| at most 16000: sums of four pixels stay in half. Means, gates and
// the product are float32.
extern "C" __global__ void __launch_bounds__(irstd::strips::THREADS,
                                             irstd::strips::BLOCKS_PER_MULTIPROCESSOR)
    irstd_haar_gate_f16(const __half* __restrict__ x, const float* __restrict__ weight,
                        const float* __restrict__ bias, int channels, int height, int width,
                        int segment_rows, __half* __restrict__ out) {
    extern __shared__ float4 shared[];
    irstd::haar_gate::run(x, weight, bias, channels, height, width, segment_rows, out,
                          &shared[0].x);
}
