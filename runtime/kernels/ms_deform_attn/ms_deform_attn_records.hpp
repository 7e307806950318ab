// How a lane adds up the records of its points, for each kind of record of
// ms_deform_attn_geometry.hpp.
//
// A Sum holds the channels of one lane. `add` takes the addresses of the records at a point's upper
// left tap and a row below, and the weights of the four taps in words, as `pack` makes them and as
// lanes hand them to each other.
#pragma once

#include <cuda_fp16.h>

#include "ms_deform_attn_geometry.hpp"

namespace irstd::ms_deform_attn {

template <class To, class From>
__device__ __forceinline__ To bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

__device__ __forceinline__ uint4 load16(const char* address) {
    return __ldg(reinterpret_cast<const uint4*>(address));
}

__device__ __forceinline__ unsigned packed(float low, float high) {
    return bits<unsigned>(__floats2half2_rn(low, high));
}

template <Number KIND, int D>
struct Sum;

// f16: up to 16 taps are summed in half, two channels at a time, then in float32. With P = 4 that is
// a level.
struct HalfWeights {
    using One = __half;
    using Two = __half2;
    static constexpr int WORDS = 2;
    static __device__ __forceinline__ void pack(const Taps& taps, unsigned (&words)[WORDS]) {
        words[0] = packed(taps.w00, taps.w01), words[1] = packed(taps.w10, taps.w11);
    }
};

template <int D>
struct Sum<Number::F16, D> : HalfWeights {
    __half2 part[4] = {};
    float total[8] = {};

    __device__ __forceinline__ void add_tap(const char* record, __half2 weight) {
        const uint4 channels = load16(record);
        part[0] = __hfma2(bits<__half2>(channels.x), weight, part[0]);
        part[1] = __hfma2(bits<__half2>(channels.y), weight, part[1]);
        part[2] = __hfma2(bits<__half2>(channels.z), weight, part[2]);
        part[3] = __hfma2(bits<__half2>(channels.w), weight, part[3]);
    }
    __device__ __forceinline__ void add(const char* above, const char* below,
                                        const unsigned (&words)[WORDS]) {
        constexpr int RIGHT = record_bytes(Number::F16, D);
        const __half2 upper = bits<__half2>(words[0]), lower = bits<__half2>(words[1]);
        add_tap(above, __low2half2(upper)), add_tap(above + RIGHT, __high2half2(upper));
        add_tap(below, __low2half2(lower)), add_tap(below + RIGHT, __high2half2(lower));
    }
    __device__ __forceinline__ void promote() {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float2 two = __half22float2(part[i]);
            total[2 * i] += two.x, total[2 * i + 1] += two.y;
            part[i] = __half2{};
        }
    }
    __device__ __forceinline__ void store(__half* head, int lane) const {
        reinterpret_cast<uint4*>(head)[lane] = {packed(total[0], total[1]), packed(total[2], total[3]),
                                                packed(total[4], total[5]), packed(total[6], total[7])};
    }
};

template <>
struct Sum<Number::F16, 1> : HalfWeights {
    __half2 part = {};
    float total = 0.0f;

    __device__ __forceinline__ void add(const char* record, const char*,
                                        const unsigned (&words)[WORDS]) {
        const uint2 taps = __ldg(reinterpret_cast<const uint2*>(record));
        part = __hfma2(bits<__half2>(taps.x), bits<__half2>(words[0]), part);
        part = __hfma2(bits<__half2>(taps.y), bits<__half2>(words[1]), part);
    }
    __device__ __forceinline__ void promote() {
        const float2 two = __half22float2(part);
        total += two.x + two.y;
        part = __half2{};
    }
    __device__ __forceinline__ void store(__half* head, int) const { *head = __float2half_rn(total); }
};

// f32
struct FloatWeights {
    using One = float;
    using Two = float2;
    static constexpr int WORDS = 4;
    static __device__ __forceinline__ void pack(const Taps& taps, unsigned (&words)[WORDS]) {
        words[0] = bits<unsigned>(taps.w00), words[1] = bits<unsigned>(taps.w01);
        words[2] = bits<unsigned>(taps.w10), words[3] = bits<unsigned>(taps.w11);
    }
};

// A lane's second four channels lie half a record after the first: the lanes of a head load 16 bytes
// each without gaps.
template <int D>
struct Sum<Number::F32, D> : FloatWeights {
    float total[8] = {};

    __device__ __forceinline__ void add_tap(const char* record, unsigned word) {
        const float weight = bits<float>(word);
#pragma unroll
        for (int i = 0; i < 8; i += 4) {
            const uint4 channels = load16(record + i / 4 * (D / 2 * 4));
            total[i] = fmaf(bits<float>(channels.x), weight, total[i]);
            total[i + 1] = fmaf(bits<float>(channels.y), weight, total[i + 1]);
            total[i + 2] = fmaf(bits<float>(channels.z), weight, total[i + 2]);
            total[i + 3] = fmaf(bits<float>(channels.w), weight, total[i + 3]);
        }
    }
    __device__ __forceinline__ void add(const char* above, const char* below,
                                        const unsigned (&words)[WORDS]) {
        constexpr int RIGHT = record_bytes(Number::F32, D);
        add_tap(above, words[0]), add_tap(above + RIGHT, words[1]);
        add_tap(below, words[2]), add_tap(below + RIGHT, words[3]);
    }
    __device__ __forceinline__ void promote() {}
    __device__ __forceinline__ void store(float* head, int lane) const {
        float4* fours = reinterpret_cast<float4*>(head);
        fours[lane] = {total[0], total[1], total[2], total[3]};
        fours[D / 8 + lane] = {total[4], total[5], total[6], total[7]};
    }
};

template <>
struct Sum<Number::F32, 1> : FloatWeights {
    float total = 0.0f;

    __device__ __forceinline__ void add(const char* record, const char*,
                                        const unsigned (&words)[WORDS]) {
        const uint4 taps = load16(record);
        total = fmaf(bits<float>(taps.x), bits<float>(words[0]), total);
        total = fmaf(bits<float>(taps.y), bits<float>(words[1]), total);
        total = fmaf(bits<float>(taps.z), bits<float>(words[2]), total);
        total = fmaf(bits<float>(taps.w), bits<float>(words[3]), total);
    }
    __device__ __forceinline__ void promote() {}
    __device__ __forceinline__ void store(float* head, int) const { *head = total; }
};

// u8: weights are whole numbers of 1 / 65535, two to a word; a packed product adds two taps of a
// channel, and no rounding follows: 65535 * 255 fits into the 24 bits of a float.
struct FixedWeights {
    using One = __half;
    using Two = __half2;
    static constexpr int WORDS = 2;
    static constexpr float ONE = 65535.0f;
    static __device__ __forceinline__ unsigned fixed(float left, float right) {
        constexpr float ROUND = 8388608.0f;  // 2^23: adding it leaves the whole number in the low bits
        return __byte_perm(bits<unsigned>(fmaf(left, ONE, ROUND)),
                           bits<unsigned>(fmaf(right, ONE, ROUND)), 0x5410);
    }
    static __device__ __forceinline__ void pack(const Taps& taps, unsigned (&words)[WORDS]) {
        words[0] = fixed(taps.w00, taps.w01), words[1] = fixed(taps.w10, taps.w11);
    }
    static __device__ __forceinline__ float dequantized(unsigned sum, float scale, float zero) {
        return scale * (static_cast<float>(sum) * (1.0f / ONE) - zero);
    }
};

template <int D>
struct Sum<Number::U8, D> : FixedWeights {
    unsigned total[8] = {};

    __device__ __forceinline__ void add_row(const char* record, unsigned weights) {
        const uint4 channels = load16(record);
        const unsigned words[4] = {channels.x, channels.y, channels.z, channels.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            total[2 * i] = __dp2a_lo(weights, words[i], total[2 * i]);
            total[2 * i + 1] = __dp2a_hi(weights, words[i], total[2 * i + 1]);
        }
    }
    __device__ __forceinline__ void add(const char* above, const char* below,
                                        const unsigned (&words)[WORDS]) {
        add_row(above, words[0]), add_row(below, words[1]);
    }
    __device__ __forceinline__ void promote() {}
    __device__ __forceinline__ void store(__half* head, int lane, float scale, float zero) const {
        unsigned words[4];
#pragma unroll
        for (int i = 0; i < 4; ++i)
            words[i] = packed(dequantized(total[2 * i], scale, zero),
                              dequantized(total[2 * i + 1], scale, zero));
        reinterpret_cast<uint4*>(head)[lane] = {words[0], words[1], words[2], words[3]};
    }
};

template <>
struct Sum<Number::U8, 1> : FixedWeights {
    unsigned total = 0;

    __device__ __forceinline__ void add(const char* record, const char*,
                                        const unsigned (&words)[WORDS]) {
        const unsigned taps = __ldg(reinterpret_cast<const unsigned*>(record));
        total = __dp2a_hi(words[1], taps, __dp2a_lo(words[0], taps, total));
    }
    __device__ __forceinline__ void promote() {}
    __device__ __forceinline__ void store(__half* head, int, float scale, float zero) const {
        *head = __float2half_rn(dequantized(total, scale, zero));
    }
};

}  // namespace irstd::ms_deform_attn
