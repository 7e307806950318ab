// Stands in for CUDA's header of the same name: half precision, every operation rounded once.
#pragma once

struct alignas(2) __half {
    _Float16 value;

    __half() = default;
    __half(float x) : value(static_cast<_Float16>(x)) {}
    __half(double x) : value(static_cast<_Float16>(x)) {}
    __half(int x) : value(static_cast<_Float16>(x)) {}
    __half(unsigned x) : value(static_cast<_Float16>(x)) {}
    operator float() const { return static_cast<float>(value); }
};
struct alignas(4) __half2 {
    __half x, y;
};
using half = __half;
using half2 = __half2;

// A sum, product or quotient of two halves in float, rounded to half, is the correctly rounded one:
// float has more than twice the digits. A product plus a half needs double.
inline float irstd_wide(__half x) { return static_cast<float>(x.value); }
inline __half irstd_fma(__half a, __half b, __half c) {
    return __half(fma(static_cast<double>(irstd_wide(a)), irstd_wide(b), irstd_wide(c)));
}

inline __half __float2half(float x) { return __half(x); }
inline __half __float2half_rn(float x) { return __half(x); }
inline __half __int2half_rn(int x) { return __half(static_cast<double>(x)); }
inline __half __uint2half_rn(unsigned x) { return __half(static_cast<double>(x)); }
inline __half __ushort2half_rn(unsigned short x) { return __half(static_cast<float>(x)); }
inline __half __short2half_rn(short x) { return __half(static_cast<float>(x)); }
inline float __half2float(__half x) { return irstd_wide(x); }
inline unsigned short __half_as_ushort(__half x) { return irstd_bits<unsigned short>(x); }
inline __half __ushort_as_half(unsigned short x) { return irstd_bits<__half>(x); }

inline __half __hadd(__half a, __half b) { return __half(irstd_wide(a) + irstd_wide(b)); }
inline __half __hsub(__half a, __half b) { return __half(irstd_wide(a) - irstd_wide(b)); }
inline __half __hmul(__half a, __half b) { return __half(irstd_wide(a) * irstd_wide(b)); }
inline __half __hdiv(__half a, __half b) { return __half(irstd_wide(a) / irstd_wide(b)); }
inline __half __hneg(__half a) { return __half(-irstd_wide(a)); }
inline __half __habs(__half a) { return __half(fabsf(irstd_wide(a))); }
inline __half __hfma(__half a, __half b, __half c) { return irstd_fma(a, b, c); }
inline __half __hmax(__half a, __half b) { return __half(fmaxf(irstd_wide(a), irstd_wide(b))); }
inline __half __hmin(__half a, __half b) { return __half(fminf(irstd_wide(a), irstd_wide(b))); }
inline bool __heq(__half a, __half b) { return irstd_wide(a) == irstd_wide(b); }
inline bool __hlt(__half a, __half b) { return irstd_wide(a) < irstd_wide(b); }
inline bool __hle(__half a, __half b) { return irstd_wide(a) <= irstd_wide(b); }
inline bool __hgt(__half a, __half b) { return irstd_wide(a) > irstd_wide(b); }
inline bool __hge(__half a, __half b) { return irstd_wide(a) >= irstd_wide(b); }
inline bool __hisnan(__half a) { return irstd_wide(a) != irstd_wide(a); }
inline __half hexp(__half x) { return __half(exp(static_cast<double>(irstd_wide(x)))); }
inline __half hexp2(__half x) { return __half(exp2(static_cast<double>(irstd_wide(x)))); }
inline __half hrcp(__half x) { return __half(1.0f / irstd_wide(x)); }
inline __half hsqrt(__half x) { return __half(sqrtf(irstd_wide(x))); }

inline __half operator+(__half a, __half b) { return __hadd(a, b); }
inline __half operator-(__half a, __half b) { return __hsub(a, b); }
inline __half operator*(__half a, __half b) { return __hmul(a, b); }
inline __half operator/(__half a, __half b) { return __hdiv(a, b); }
inline __half operator-(__half a) { return __hneg(a); }
inline __half& operator+=(__half& a, __half b) { return a = a + b; }
inline __half& operator*=(__half& a, __half b) { return a = a * b; }
inline bool operator==(__half a, __half b) { return __heq(a, b); }
inline bool operator!=(__half a, __half b) { return !__heq(a, b); }
inline bool operator<(__half a, __half b) { return __hlt(a, b); }
inline bool operator<=(__half a, __half b) { return __hle(a, b); }
inline bool operator>(__half a, __half b) { return __hgt(a, b); }
inline bool operator>=(__half a, __half b) { return __hge(a, b); }

inline __half2 __halves2half2(__half low, __half high) { return {low, high}; }
inline __half2 make_half2(__half low, __half high) { return {low, high}; }
inline __half2 __half2half2(__half x) { return {x, x}; }
inline __half2 __float2half2_rn(float x) { return {__half(x), __half(x)}; }
inline __half2 __floats2half2_rn(float low, float high) { return {__half(low), __half(high)}; }
inline __half2 __float22half2_rn(float2 x) { return {__half(x.x), __half(x.y)}; }
inline float2 __half22float2(__half2 x) { return {irstd_wide(x.x), irstd_wide(x.y)}; }
inline float __low2float(__half2 x) { return irstd_wide(x.x); }
inline float __high2float(__half2 x) { return irstd_wide(x.y); }
inline __half __low2half(__half2 x) { return x.x; }
inline __half __high2half(__half2 x) { return x.y; }
inline __half2 __low2half2(__half2 x) { return {x.x, x.x}; }
inline __half2 __high2half2(__half2 x) { return {x.y, x.y}; }
inline __half2 __lows2half2(__half2 a, __half2 b) { return {a.x, b.x}; }
inline __half2 __highs2half2(__half2 a, __half2 b) { return {a.y, b.y}; }
inline __half2 __lowhigh2highlow(__half2 x) { return {x.y, x.x}; }

inline __half2 __hadd2(__half2 a, __half2 b) { return {a.x + b.x, a.y + b.y}; }
inline __half2 __hsub2(__half2 a, __half2 b) { return {a.x - b.x, a.y - b.y}; }
inline __half2 __hmul2(__half2 a, __half2 b) { return {a.x * b.x, a.y * b.y}; }
inline __half2 __h2div(__half2 a, __half2 b) { return {a.x / b.x, a.y / b.y}; }
inline __half2 __hneg2(__half2 a) { return {-a.x, -a.y}; }
inline __half2 __habs2(__half2 a) { return {__habs(a.x), __habs(a.y)}; }
inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) {
    return {irstd_fma(a.x, b.x, c.x), irstd_fma(a.y, b.y, c.y)};
}
inline __half2 __hmax2(__half2 a, __half2 b) { return {__hmax(a.x, b.x), __hmax(a.y, b.y)}; }
inline __half2 __hmin2(__half2 a, __half2 b) { return {__hmin(a.x, b.x), __hmin(a.y, b.y)}; }
inline __half2 h2exp(__half2 x) { return {hexp(x.x), hexp(x.y)}; }
inline __half2 h2exp2(__half2 x) { return {hexp2(x.x), hexp2(x.y)}; }
inline __half2 h2rcp(__half2 x) { return {hrcp(x.x), hrcp(x.y)}; }
inline __half2 operator+(__half2 a, __half2 b) { return __hadd2(a, b); }
inline __half2 operator-(__half2 a, __half2 b) { return __hsub2(a, b); }
inline __half2 operator*(__half2 a, __half2 b) { return __hmul2(a, b); }
