// What every kernel needs of its compiler: host/device marks, function versions, exponentials.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define IRSTD_HD __host__ __device__ __forceinline__
#else
#define IRSTD_HD inline __attribute__((always_inline))
#endif

// One version of a function for each level of x86-64, the best chosen when the library is loaded. The
// levels are features; "arch=haswell" would ask for Intel's processors by name.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__)
#if __GNUC__ >= 12
#define IRSTD_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define IRSTD_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#else
#define IRSTD_CLONES
#endif

// What Python and the engines' plugins call; everything else stays inside the library.
#define IRSTD_EXPORT extern "C" __attribute__((visibility("default")))

namespace irstd {

// e^x to 2 ulp for x in [-87, 87]; arguments outside are clamped. Vectorises. The polynomial is the
// Taylor series to x^6 of e^r on |r| <= ln(2) / 2: its remainder, r^7 / 5040, is below 1.2e-7.
IRSTD_HD float exponential(float x) {
    x = x > 87.0f ? 87.0f : x;
    x = x < -87.0f ? -87.0f : x;
    const float round = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer
    const float shifted = x * 1.44269504f + round;
    const float k = shifted - round;
    const float r = (x - k * 0.693359375f) + k * 2.12194440e-4f;  // ln 2 in two parts
    float p = 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const int32_t bits = (static_cast<int32_t>(k) + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

IRSTD_HD float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

}  // namespace irstd
