// The second part of the spectral split: both bands pooled over the channels, gated and added up.
#pragma once

#include "../strips_device.hpp"
#include "spectral_split_launch.hpp"

namespace irstd::spectral_split {

// A block walks along a strip as that of the Haar gate does (strips.hpp): x and low are read from
// DRAM once, and once more from the cache three to seven rows later. Pooled rows outside the image
// are zero.
template <class T>
struct Gates {
    using Shared = Layout<sizeof(T)>;
    static constexpr int VECTOR_PX = Shared::VECTOR_PX, PACK_PX = VECTOR_PX / strips::PACKS;
    static constexpr int PACKS = strips::PACKS;

    const T* x;  // the image
    const T* low;
    const float* gamma;
    T* out;
    int channels, height, width;
    strips::Walk walk;
    int strip_px;
    float* shared;

    __device__ size_t plane() const { return static_cast<size_t>(height) * width; }

    // Mean and maximum of the bands over the channels for the rows of a step.
    __device__ void pool(int step) const {
        const strips::Share mine = strips::share();
        const int y = walk.pooled_row(step) + mine.row;
        const int px = strip_px + (mine.vector - 1) * VECTOR_PX;
        const bool is_inside = y >= 0 && y < height && px >= 0 && px < width;
        strips::Pack<T> most[BANDS][PACKS];
        float sums[BANDS][VECTOR_PX] = {};
        const float least[] = {strips::LEAST, strips::LEAST};
#pragma unroll
        for (int i = 0; i < BANDS * PACKS; ++i) strips::pack_up(least, most[i / PACKS][i % PACKS]);
        if (is_inside && y >= walk.first_row - REACH_PX && y < walk.last_row + REACH_PX) {
            size_t at = mine.group * plane() + static_cast<size_t>(y) * width + px;
#pragma unroll 2
            for (int channel = mine.group; channel < channels; channel += strips::CHANNEL_GROUPS) {
                strips::Pack<T> all[PACKS], band[PACKS];
                strips::load_vector(x + at, all);
                strips::load_vector(low + at, band);
                add(band, most[0], sums[0]);
#pragma unroll
                for (int i = 0; i < PACKS; ++i) band[i] = all[i] - band[i];
                add(band, most[1], sums[1]);
                at += strips::CHANNEL_GROUPS * plane();
            }
        }
#pragma unroll
        for (int band = 0; band < BANDS; ++band) {
            strips::reduce_groups<PACKS>(most[band], mine.group, strips::Maximum());
            strips::reduce_groups<VECTOR_PX>(sums[band], mine.group, strips::Sum());
        }
        // Of the two lanes with the same pack, one stores the maxima and the other the means.
        const float share = 1.0f / static_cast<float>(channels);
        float* to = shared + (strips::Walk::ring_row(step) + mine.row) * Shared::ROW_PX +
                    mine.vector * VECTOR_PX + mine.group / 2 * PACK_PX;
#pragma unroll
        for (int band = 0; band < BANDS; ++band) {
            float pixels[PACK_PX];
            strips::unpack(most[band][0], pixels);
            const bool is_maximum = mine.group % 2;
#pragma unroll
            for (int k = 0; k < PACK_PX; ++k)
                to[(band * POOLS + is_maximum) * Shared::PLANE + k] =
                    is_inside ? (is_maximum ? pixels[k] : share * sums[band][k]) : 0.0f;
        }
    }

    __device__ static __forceinline__ void add(const strips::Pack<T> (&band)[PACKS],
                                               strips::Pack<T> (&most)[PACKS],
                                               float (&sums)[VECTOR_PX]) {
#pragma unroll
        for (int i = 0; i < PACKS; ++i) {
            most[i] = strips::larger(most[i], band[i]);
            float pixels[PACK_PX];
            strips::unpack(band[i], pixels);
#pragma unroll
            for (int k = 0; k < PACK_PX; ++k) sums[i * PACK_PX + k] += pixels[k];
        }
    }

    __device__ void gate(int top_step, const float* bias) const {
        using Lane = strips::Quad<Shared, BANDS>;
        if (threadIdx.x >= Lane::LANES) return;
        const Lane quad;
        float gates[strips::QUAD_PX];
        quad.gate(shared, top_step, bias, gates);
        *reinterpret_cast<float4*>(shared + Shared::GATES + quad.band * Shared::GATE +
                                   quad.row * Shared::STRIP_PX +
                                   quad.px) = {gates[0], gates[1], gates[2], gates[3]};
    }

    // A lane keeps its vectors of the gates for all channels.
    __device__ void recombine(int top_step) const {
        const int vector = threadIdx.x % strips::STRIP_VECTORS;
        const int row = threadIdx.x / strips::STRIP_VECTORS % strips::STEP_ROWS;
        const int y = walk.gated_row(top_step) + row, px = strip_px + vector * VECTOR_PX;
        if (y >= walk.last_row || px >= width) return;
        float gates[BANDS][VECTOR_PX];
#pragma unroll
        for (int band = 0; band < BANDS; ++band)
            strips::copy_vectors<VECTOR_PX / 4>(shared + Shared::GATES + band * Shared::GATE +
                                                    row * Shared::STRIP_PX + vector * VECTOR_PX,
                                                gates[band]);
        const int first = threadIdx.x / (strips::STRIP_VECTORS * strips::STEP_ROWS);
        size_t at = first * plane() + static_cast<size_t>(y) * width + px;
#pragma unroll 2
        for (int channel = first; channel < channels; channel += strips::WARPS) {
            const float gain_low = gamma[channel], gain_high = gamma[channels + channel];
            strips::Pack<T> all[PACKS], band[PACKS];
            strips::load_vector(x + at, all);
            strips::load_vector(low + at, band);
#pragma unroll
            for (int i = 0; i < PACKS; ++i) {
                float pixels[PACK_PX], lows[PACK_PX];
                strips::unpack(all[i], pixels);
                strips::unpack(band[i], lows);
#pragma unroll
                for (int k = 0; k < PACK_PX; ++k)
                    pixels[k] = recombined(pixels[k], lows[k], gain_low * gates[0][i * PACK_PX + k],
                                           gain_high * gates[1][i * PACK_PX + k]);
                strips::pack_up(pixels, all[i]);
            }
            strips::stream_vector(all, out + at);
            at += strips::WARPS * plane();
        }
    }

    __device__ void run(const float* weight, const float* bias) const {
        strips::copy_weights<Shared, BANDS>(weight, shared);
        for (int i = 0; i < walk.steps(); ++i) {
            const int step = walk.step(i);
            pool(step);
            __syncthreads();
            if (i < strips::RING_STEPS - 1) continue;
            gate(walk.top_step(step), bias);
            __syncthreads();
            recombine(walk.top_step(step));  // while other warps pool the next rows
        }
    }
};

template <class T>
__device__ __forceinline__ void gate(const T* x, const T* low, const float* weight,
                                     const float* bias, const float* gamma, int channels,
                                     int height, int width, int segment_rows, T* out,
                                     float* shared) {
    const size_t image = static_cast<size_t>(blockIdx.z) * channels * height * width;
    const int strip_px = static_cast<int>(blockIdx.x) * Layout<sizeof(T)>::STRIP_PX;
    const strips::Walk walk(height, segment_rows);
    Gates<T>{x + image, low + image, gamma, out + image, channels,
             height,    width,       walk,  strip_px,    shared}
        .run(weight, bias);
}

}  // namespace irstd::spectral_split
