// The arithmetic of the spectral split that host and device share (models.md 4.5, FAE): the
// Butterworth response, the butterflies of the Fourier transform and the recombination.
// Transforms are templates over what a number is: a float, or a vector of them.
#pragma once

#include "../portable.hpp"

namespace irstd::spectral_split {

constexpr int BANDS = 2;  // low, high
constexpr int POOLS = 2;  // mean and maximum over the channels
constexpr int KERNEL_PX = 7;  // of the gates
constexpr int REACH_PX = KERNEL_PX / 2;
constexpr int WEIGHTS = BANDS * POOLS * KERNEL_PX * KERNEL_PX;

// Second-order Butterworth low-pass at frequencies (u, v) in cycles per pixel, both already squared
// and divided by the squared cutoff: 1 / (1 + (D / D0)^4), times a scale.
template <class V>
IRSTD_HD V butterworth(V u_squared, V v_squared, float scale) {
    const V ratio = u_squared + v_squared;
    return scale / (ratio * ratio + 1.0f);
}

// 1 / D0^2, kept where its product with any squared frequency can be squared in float32: a cutoff
// far below the lowest frequency of any map passes the mean only, as it should.
IRSTD_HD float inverse_square(float cutoff) {
    const float least = 1e-9f;
    cutoff = cutoff > least ? cutoff : least;
    return 1.0f / (cutoff * cutoff);
}

// Frequency k of a transform of n samples, in cycles per pixel, without its sign.
IRSTD_HD float frequency(int k, int n) {
    return static_cast<float>(2 * k <= n ? k : n - k) / static_cast<float>(n);
}

template <class V>
struct Complex {
    V re, im;
};

template <class V>
IRSTD_HD Complex<V> operator+(Complex<V> a, Complex<V> b) {
    return {a.re + b.re, a.im + b.im};
}

template <class V>
IRSTD_HD Complex<V> operator-(Complex<V> a, Complex<V> b) {
    return {a.re - b.re, a.im - b.im};
}

template <class V, class W>
IRSTD_HD Complex<V> operator*(Complex<V> a, Complex<W> w) {
    return {a.re * w.re - a.im * w.im, a.re * w.im + a.im * w.re};
}

template <class V>
IRSTD_HD Complex<V> conj(Complex<V> a) {
    return {a.re, -a.im};
}

// With the parts swapped before and after, a forward transform becomes the inverse one times n.
template <class V>
IRSTD_HD Complex<V> swapped(Complex<V> a) {
    return {a.im, a.re};
}

template <class V>
IRSTD_HD Complex<V> times_minus_i(Complex<V> a) {
    return {a.im, -a.re};
}

// Forward transforms e^(-2 pi i j k / R) of R values in place, results in natural order.
template <class V>
IRSTD_HD void dft2(Complex<V>& a, Complex<V>& b) {
    const Complex<V> sum = a + b;
    b = a - b;
    a = sum;
}

template <class V>
IRSTD_HD void dft4(Complex<V>& a, Complex<V>& b, Complex<V>& c, Complex<V>& d) {
    const Complex<V> even = a + c, odd = b + d, minus = a - c, turned = times_minus_i(b - d);
    a = even + odd;
    b = minus + turned;
    c = even - odd;
    d = minus - turned;
}

template <class V>
IRSTD_HD void dft8(Complex<V> (&z)[8]) {
    const float r = 0.707106781f;  // cos(pi / 4): its products are left to the last additions
    for (int j = 0; j < 4; ++j) dft2(z[j], z[j + 4]);
    dft4(z[0], z[1], z[2], z[3]);
    const Complex<V> a = {z[5].re + z[5].im, z[5].im - z[5].re};
    const Complex<V> b = {z[7].im - z[7].re, z[7].re + z[7].im};
    const Complex<V> odd = {a.re + b.re, a.im - b.im}, turned = {a.im + b.im, b.re - a.re};
    const Complex<V> even = {z[4].re + z[6].im, z[4].im - z[6].re};
    const Complex<V> minus = {z[4].re - z[6].im, z[4].im + z[6].re};
    const Complex<V> k2 = z[1], k4 = z[2], k6 = z[3];
    z[1] = {even.re + r * odd.re, even.im + r * odd.im};
    z[5] = {even.re - r * odd.re, even.im - r * odd.im};
    z[3] = {minus.re + r * turned.re, minus.im + r * turned.im};
    z[7] = {minus.re - r * turned.re, minus.im - r * turned.im};
    z[2] = k2, z[4] = k4, z[6] = k6;
}

// What a pixel of x and of its low band count for in the result, from the gates at the pixel and
// the gains of the channel. The high band is x - low: out = x + gain_high * (x - low) + gain_low * low.
template <class V>
IRSTD_HD V recombined(V x, V low, V gain_low, V gain_high) {
    return x + gain_high * (x - low) + gain_low * low;
}

}  // namespace irstd::spectral_split
