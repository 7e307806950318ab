// Arithmetic that CUDA has and C++ has not, or has under another name. Exact where a GPU approximates.
#pragma once

constexpr int min(int a, int b) { return b < a ? b : a; }
constexpr unsigned min(unsigned a, unsigned b) { return b < a ? b : a; }
constexpr long long min(long long a, long long b) { return b < a ? b : a; }
inline float min(float a, float b) { return fminf(a, b); }
constexpr int max(int a, int b) { return a < b ? b : a; }
constexpr unsigned max(unsigned a, unsigned b) { return a < b ? b : a; }
constexpr long long max(long long a, long long b) { return a < b ? b : a; }
inline float max(float a, float b) { return fmaxf(a, b); }

inline float __expf(float x) { return expf(x); }
inline float __exp2f(float x) { return exp2f(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __tanhf(float x) { return tanhf(x); }
inline void sincospif(float x, float* sine, float* cosine) {
    const double angle = 3.14159265358979323846 * static_cast<double>(x);
    *sine = static_cast<float>(sin(angle)), *cosine = static_cast<float>(cos(angle));
}
inline float __fdividef(float a, float b) { return a / b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frsqrt_rn(float x) { return static_cast<float>(1.0 / sqrt(static_cast<double>(x))); }
inline float rsqrtf(float x) { return __frsqrt_rn(x); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }

// Saturating, NaN to 0.
inline int irstd_to_int(float x) {
    if (x != x) return 0;
    if (x >= 2147483648.0f) return std::numeric_limits<int>::max();
    if (x < -2147483648.0f) return std::numeric_limits<int>::min();
    return static_cast<int>(x);
}
inline unsigned irstd_to_uint(float x) {
    if (!(x > 0.0f)) return 0;
    return x >= 4294967296.0f ? std::numeric_limits<unsigned>::max() : static_cast<unsigned>(x);
}
inline int __float2int_rd(float x) { return irstd_to_int(floorf(x)); }
inline int __float2int_ru(float x) { return irstd_to_int(ceilf(x)); }
inline int __float2int_rn(float x) { return irstd_to_int(nearbyintf(x)); }
inline int __float2int_rz(float x) { return irstd_to_int(truncf(x)); }
inline unsigned __float2uint_rn(float x) { return irstd_to_uint(nearbyintf(x)); }
inline unsigned __float2uint_rz(float x) { return irstd_to_uint(truncf(x)); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }

template <class To, class From>
To irstd_bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
inline int __float_as_int(float x) { return irstd_bits<int>(x); }
inline unsigned __float_as_uint(float x) { return irstd_bits<unsigned>(x); }
inline float __int_as_float(int x) { return irstd_bits<float>(x); }
inline float __uint_as_float(unsigned x) { return irstd_bits<float>(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline int __mul24(int a, int b) { return static_cast<int>((a << 8 >> 8) * static_cast<long long>(b << 8 >> 8)); }
inline unsigned __umulhi(unsigned a, unsigned b) {
    return static_cast<unsigned>(static_cast<unsigned long long>(a) * b >> 32);
}
inline int __mulhi(int a, int b) { return static_cast<int>(static_cast<long long>(a) * b >> 32); }

// Bytes 0 to 3 are those of `a`, 4 to 7 those of `b`; bit 3 of a selector repeats the byte's sign.
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selectors) {
    const unsigned long long bytes = static_cast<unsigned long long>(b) << 32 | a;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) {
        const unsigned selector = selectors >> 4 * i & 15;
        unsigned byte = bytes >> 8 * (selector & 7) & 255;
        if (selector & 8) byte = byte & 128 ? 255 : 0;
        result |= byte << 8 * i;
    }
    return result;
}
inline int __dp4a(int a, int b, int c) {
    for (int i = 0; i < 4; ++i)
        c += static_cast<int8_t>(a >> 8 * i & 255) * static_cast<int8_t>(b >> 8 * i & 255);
    return c;
}
inline unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
    for (int i = 0; i < 4; ++i) c += (a >> 8 * i & 255) * (b >> 8 * i & 255);
    return c;
}

// Two 16-bit numbers of `a` times the lower (lo) or upper (hi) two bytes of `b`.
inline unsigned __dp2a_lo(unsigned a, unsigned b, unsigned c) {
    return c + (a & 0xffff) * (b & 255) + (a >> 16) * (b >> 8 & 255);
}
inline unsigned __dp2a_hi(unsigned a, unsigned b, unsigned c) { return __dp2a_lo(a, b >> 16, c); }
inline int __dp2a_lo(int a, int b, int c) {
    return c + static_cast<int16_t>(a & 0xffff) * static_cast<int8_t>(b & 255) +
           static_cast<int16_t>(a >> 16 & 0xffff) * static_cast<int8_t>(b >> 8 & 255);
}
inline int __dp2a_hi(int a, int b, int c) { return __dp2a_lo(a, b >> 16, c); }
