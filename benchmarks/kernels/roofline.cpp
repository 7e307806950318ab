// What one core can do at most: products of floats, products of 8-bit integers, bytes copied. Chains
// of independent instructions on registers, each function returning how much it did.
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define EXPORT extern "C" __attribute__((visibility("default")))
#define CHAINS 10  // latency times throughput of a multiply-add, with some to spare

namespace {

#if defined(__x86_64__)
constexpr int FLOATS = 8, BYTES = 32;

__attribute__((target("avx2,fma"))) float add_products(long rounds) {
    __m256 sum[CHAINS];
    const __m256 x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(0.5f);
    for (auto& part : sum) part = x;
    for (long i = 0; i < rounds; ++i) {
#pragma GCC unroll 10
        for (int k = 0; k < CHAINS; ++k) sum[k] = _mm256_fmadd_ps(sum[k], x, y);
    }
    for (int k = 1; k < CHAINS; ++k) sum[0] = _mm256_add_ps(sum[0], sum[k]);
    return sum[0][0];
}

// Unsigned by signed bytes, as convolutions need them: three instructions without VNNI.
__attribute__((target("avx2"))) int add_byte_products(long rounds) {
    __m256i sum[CHAINS];
    const __m256i x = _mm256_set1_epi8(3), ones = _mm256_set1_epi16(1);
    for (auto& part : sum) part = _mm256_setzero_si256();
    for (long i = 0; i < rounds; ++i) {
#pragma GCC unroll 10
        for (int k = 0; k < CHAINS; ++k) {
            __m256i weight = x;
            asm volatile("" : "+x"(weight));  // another one each time, as far as the compiler knows
            const __m256i pairs = _mm256_maddubs_epi16(x, weight);
            sum[k] = _mm256_add_epi32(sum[k], _mm256_madd_epi16(pairs, ones));
        }
    }
    for (int k = 1; k < CHAINS; ++k) sum[0] = _mm256_add_epi32(sum[0], sum[k]);
    return _mm256_extract_epi32(sum[0], 0);
}

__attribute__((target("avx512vnni,avx512vl"))) int add_byte_products_vnni(long rounds) {
    __m256i sum[CHAINS];
    const __m256i x = _mm256_set1_epi8(3);
    for (auto& part : sum) part = _mm256_setzero_si256();
    for (long i = 0; i < rounds; ++i) {
#pragma GCC unroll 10
        for (int k = 0; k < CHAINS; ++k) {
            __m256i weight = x;
            asm volatile("" : "+x"(weight));
            sum[k] = _mm256_dpbusd_epi32(sum[k], x, weight);
        }
    }
    for (int k = 1; k < CHAINS; ++k) sum[0] = _mm256_add_epi32(sum[0], sum[k]);
    return _mm256_extract_epi32(sum[0], 0);
}
#else
constexpr int FLOATS = 4;
typedef float Floats __attribute__((vector_size(16)));

float add_products(long rounds) {
    Floats sum[CHAINS];
    for (auto& part : sum) part = Floats{1, 1, 1, 1};
    for (long i = 0; i < rounds; ++i) {
#pragma GCC unroll 10
        for (int k = 0; k < CHAINS; ++k) sum[k] = sum[k] * 0.999f + 0.5f;
    }
    for (int k = 1; k < CHAINS; ++k) sum[0] += sum[k];
    return sum[0][0];
}
#endif

volatile float float_sink;
volatile int int_sink;

}  // namespace

// Multiply-adds of floats; 0 where this CPU has no instruction for them.
EXPORT double irstd_roofline_float(long rounds) {
#if defined(__x86_64__)
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
#endif
    float_sink = add_products(rounds);
    return static_cast<double>(rounds) * CHAINS * FLOATS;
}

// Multiply-adds of unsigned by signed bytes; 0 where none of the instructions known here is there.
EXPORT double irstd_roofline_int8(long rounds) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vl"))
        int_sink = add_byte_products_vnni(rounds);
    else if (__builtin_cpu_supports("avx2"))
        int_sink = add_byte_products(rounds);
    else
        return 0;
    return static_cast<double>(rounds) * CHAINS * BYTES;
#else
    (void)rounds;
    return 0;
#endif
}

// Bytes read and written.
EXPORT double irstd_roofline_copy(const char* from, char* to, size_t size) {
    memcpy(to, from, size);
    return 2.0 * static_cast<double>(size);
}
