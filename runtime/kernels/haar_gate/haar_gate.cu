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

// Pixels of a row that fill one register and are added and compared together: two halves or a float.
template <class T> struct PackOf;
template <> struct PackOf<float> { using Type = float; };
template <> struct PackOf<__half> { using Type = __half2; };
template <class T> using Pack = typename PackOf<T>::Type;

template <class T>
__device__ __forceinline__ Pack<T> pack_of(float);
template <>
__device__ __forceinline__ float pack_of<float>(float value) {
    return value;
}
template <>
__device__ __forceinline__ __half2 pack_of<__half>(float value) {
    return __float2half2_rn(value);
}

__device__ __forceinline__ float larger(float a, float b) { return fmaxf(a, b); }
__device__ __forceinline__ __half2 larger(__half2 a, __half2 b) { return __hmax2(a, b); }

// The pixels to the left of those in `pack`.
__device__ __forceinline__ float to_the_left(float before, float) { return before; }
__device__ __forceinline__ __half2 to_the_left(__half2 before, __half2 pack) {
    return __halves2half2(__high2half(before), __low2half(pack));
}

__device__ __forceinline__ void unpack(float pack, float (&pixels)[1]) { pixels[0] = pack; }
__device__ __forceinline__ void unpack(__half2 pack, float (&pixels)[2]) {
    const float2 both = __half22float2(pack);
    pixels[0] = both.x, pixels[1] = both.y;
}

__device__ __forceinline__ float rounded(float value, float) { return value; }
__device__ __forceinline__ __half rounded(float value, __half) { return __float2half_rn(value); }

template <class T>
struct Strip {
    using Shared = Layout<sizeof(T)>;
    static constexpr int VECTOR_PX = Shared::VECTOR_PX, PACK_PX = VECTOR_PX / PACKS;

    const T* x;  // of the image
    T* out;
    int channels, height, width;
    int first_px;             // of the strip
    int first_row, last_row;  // of the segment; last_row is the one after
    bool is_aligned;          // rows begin at multiples of 16 bytes
    float* shared;

    __device__ size_t plane() const { return static_cast<size_t>(height) * width; }
    __device__ int pooled_row(int step) const {
        return first_row - REACH_PX - LEAD_ROWS + step * STEP_ROWS;
    }
    __device__ bool is_inside(int row, int px) const {
        return row >= 0 && row < height && px >= 0 && px < width;
    }
};

union Vector {
    uint4 bits;
    float packs_f32[PACKS];
};

// A vector of a row, after the pack before it; zeros outside the image.
template <class T>
__device__ __forceinline__ void load(const Strip<T>& strip, const T* row, bool is_row, int px,
                                     Pack<T> (&packs)[PACKS + 1]) {
    constexpr int PACK_PX = Strip<T>::PACK_PX, VECTOR_PX = Strip<T>::VECTOR_PX;
    for (int i = 0; i <= PACKS; ++i) packs[i] = pack_of<T>(0.0f);
    if (!is_row) return;
    if (strip.is_aligned) {
        if (px > 0) packs[0] = *reinterpret_cast<const Pack<T>*>(row + px - PACK_PX);
        if (px >= 0 && px < strip.width) {
            const uint4 bits = *reinterpret_cast<const uint4*>(row + px);
            memcpy(&packs[1], &bits, sizeof bits);
        }
    } else {
        T pixels[PACK_PX + VECTOR_PX];
        for (int i = 0; i < PACK_PX + VECTOR_PX; ++i) {
            const int at = px - PACK_PX + i;
            pixels[i] = at >= 0 && at < strip.width ? row[at] : rounded(0.0f, T());
        }
        memcpy(&packs[0], pixels, sizeof pixels);
    }
}
