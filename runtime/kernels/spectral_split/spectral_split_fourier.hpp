// Fourier transforms of any length on a CPU, LANES of them side by side: every butterfly is made of
// whole vectors. The forward transform goes from natural to permuted order (decimation in
// frequency), the inverse one back through the same stages; what happens between them is pointwise,
// so that nothing is ever put in order.
#pragma once

#include <cmath>
#include <vector>

#include "../pixels.hpp"

// Vectors are only passed between functions that are inlined: how a call would pass them is no matter.
#pragma GCC diagnostic ignored "-Wpsabi"

#include "spectral_split.hpp"

#define IRSTD_INLINE inline __attribute__((always_inline))

namespace irstd::spectral_split {

using Lanes = Complex<Pixels>;
constexpr int LANES_FLOATS = 2 * LANES;  // LANES real parts, then as many imaginary parts

// Complex vectors `stride` floats apart.
struct Line {
    float* data;
    ptrdiff_t stride;
};

struct ConstLine {
    const float* data;
    ptrdiff_t stride;

    ConstLine(const float* first, ptrdiff_t step) : data(first), stride(step) {}
    ConstLine(const Line& line) : data(line.data), stride(line.stride) {}
};

// The inverse transform is the forward one on numbers with their parts swapped.
template <bool INVERSE>
IRSTD_INLINE void load(const float* p, Lanes& z) {
    irstd::load(p, INVERSE ? z.im : z.re);
    irstd::load(p + LANES, INVERSE ? z.re : z.im);
}

template <bool INVERSE>
IRSTD_INLINE void store(const Lanes& z, float* p) {
    irstd::store(INVERSE ? z.im : z.re, p);
    irstd::store(INVERSE ? z.re : z.im, p + LANES);
}

// A twiddle is one complex number or, with T = Pixels, one for each lane.
template <typename T>
constexpr int TWIDDLE_FLOATS = 2 * sizeof(T) / sizeof(float);

template <typename T>
IRSTD_INLINE void twiddle(Lanes& z, const float* w) {
    T re, im;
    irstd::load(w, re);
    irstd::load(w + TWIDDLE_FLOATS<T> / 2, im);
    z = {z.re * re - z.im * im, z.re * im + z.im * re};
}

// Stage of a transform: `blocks` blocks of radix * step values, of which those `step` apart are
// transformed together. Forward, the twiddles depend on the block; back, on the place in it.
struct Stage {
    int radix, step, blocks;
    const float* by_block;  // (blocks, radix - 1) twiddles of one number
    const float* by_place;  // (step, radix - 1) twiddles, of one number or one for each lane
    const float* roots;     // (radix) complex: e^(-2 pi i k / radix)
};

// e^(-2 pi i k / n) for k < n.
class Roots {
public:
    explicit Roots(int n) : n_(n), values_(n) {
        for (int k = 0; k < n; ++k) {
            const double angle = 2 * 3.14159265358979323846 * k / n;
            values_[k] = {static_cast<float>(std::cos(angle)), static_cast<float>(-std::sin(angle))};
        }
    }

    // For any k >= 0 of the n-th or, `of` being a divisor of n, the of-th roots.
    Complex<float> operator()(int64_t k, int of) const { return values_[k * (n_ / of) % n_]; }

private:
    int n_;
    std::vector<Complex<float>> values_;
};

// Append a twiddle of one number for each lane.
template <typename Number>
void append_lanes(std::vector<float>& table, const Number& number) {
    Complex<float> w[LANES];
    for (int l = 0; l < LANES; ++l) w[l] = number(l);
    for (int l = 0; l < LANES; ++l) table.push_back(w[l].re);
    for (int l = 0; l < LANES; ++l) table.push_back(w[l].im);
}

// The stages of a transform of `n` values but for a last one of radix `last`, which the caller does:
// n / last blocks of neighbours. Value q of block b has in the end frequency base[b] + n / last * q.
//
// With `lanes` = LANES, not 1, it is a part of a transform of n * lanes values, of which lane l has those at
// j * lanes + l: the twiddles on the way back are then those of the whole, one for each lane.
class Fourier {
public:
    Fourier(int n, int last, int lanes) : n(n), last(last), lanes(lanes), base(1) {
        const Roots roots(n * lanes);
        std::vector<int> radices;
        int rest = n / last;
        const auto take = [&](int radix) { radices.push_back(radix), rest /= radix; };
        while (rest % 2 == 0) take(rest % 8 == 0 && rest != 16 ? 8 : rest % 4 == 0 ? 4 : 2);
        for (int prime = 3; rest > 1; prime += 2)
            while (rest % prime == 0) take(prime);
        int blocks = 1;
        for (const int radix : radices) {
            const int step = n / blocks / radix;
            Stage stage = {radix, step, blocks, nullptr, nullptr, nullptr};
            stage.by_block = add(block_twiddles(radix, blocks, roots));
            stage.by_place = add(place_twiddles(radix, step, roots));
            stage.roots = add(powers(radix, roots));
            stages.push_back(stage);
            std::vector<int> next;
            for (const int frequency : base)
                for (int k = 0; k < radix; ++k) next.push_back(frequency + blocks * k);
            base = next;
            blocks *= radix;
            if (radix > most_) most_ = radix;
        }
        last_by_block = block_twiddles(last, blocks, roots);
        last_by_place = place_twiddles(last, 1, roots);
    }

    Fourier(const Fourier&) = delete;  // the stages point into it

    const int n, last, lanes;
    std::vector<Stage> stages;
    std::vector<int> base;
    std::vector<float> last_by_block, last_by_place;

    // The frequency at a position of the permuted order.
    int frequency(int position) const { return base[position / last] + n / last * (position % last); }
    size_t scratch_floats() const { return size_t(2) * most_ * LANES_FLOATS; }

private:
    using Table = std::vector<float>;

    const float* add(Table table) {
        tables_.push_back(std::move(table));
        return tables_.back().data();
    }

    static void append(Table& table, Complex<float> w) { table.insert(table.end(), {w.re, w.im}); }

    Table block_twiddles(int radix, int blocks, const Roots& roots) const {
        Table table;
        for (int block = 0; block < blocks; ++block)
            for (int q = 1; q < radix; ++q) append(table, roots(base[block] * q, blocks * radix));
        return table;
    }

    Table place_twiddles(int radix, int step, const Roots& roots) const {
        Table table;
        const int of = radix * step * lanes;
        for (int j = 0; j < step; ++j)
            for (int q = 1; q < radix; ++q) {
                if (lanes == 1) append(table, roots(j * q, of));
                else append_lanes(table, [&](int l) { return roots((j * LANES + l) * q, of); });
            }
        return table;
    }

    Table powers(int radix, const Roots& roots) const {
        Table table;
        for (int k = 0; k < radix; ++k)
            append(table, roots(k, radix));
        return table;
    }

    int most_ = 1;
    std::vector<Table> tables_;
};

// Transform of any odd length, from z to y.
IRSTD_INLINE void dft_odd(int radix, Lanes* z, const float* roots, Lanes* y) {
    const int half = radix / 2;
    Lanes sum = z[0];
    for (int j = 1; j <= half; ++j) {
        dft2(z[j], z[radix - j]);
        sum = sum + z[j];
    }
    y[0] = sum;
    for (int k = 1; k <= half; ++k) {
        Lanes even = z[0], odd = {};
        for (int j = 1, turn = k; j <= half; ++j) {
            const Complex<float> root = {roots[2 * turn], roots[2 * turn + 1]};
            even = even + Lanes{root.re * z[j].re, root.re * z[j].im};
            odd = odd + Lanes{root.im * z[radix - j].im, root.im * z[radix - j].re};
            turn += k;
            if (turn >= radix) turn -= radix;
        }
        y[k] = {even.re - odd.re, even.im + odd.im};
        y[radix - k] = {even.re + odd.re, even.im - odd.im};
    }
}

template <int RADIX>
IRSTD_INLINE void dft(Lanes (&z)[RADIX], const float* roots = nullptr) {
    if constexpr (RADIX == 2) dft2(z[0], z[1]);
    else if constexpr (RADIX == 4) dft4(z[0], z[1], z[2], z[3]);
    else if constexpr (RADIX == 8) dft8(z);
    else if constexpr (RADIX > 1) {
        Lanes y[RADIX];
        dft_odd(RADIX, z, roots, y);
        for (int k = 0; k < RADIX; ++k) z[k] = y[k];
    }
}

template <typename T, int RADIX>
IRSTD_INLINE void twiddle(Lanes (&z)[RADIX], const float* table) {
#pragma GCC unroll 8
    for (int q = 1; q < RADIX; ++q) twiddle<T>(z[q], table + (q - 1) * TWIDDLE_FLOATS<T>);
}

template <int RADIX, bool INVERSE, typename T>
IRSTD_INLINE void butterfly(const float* in, ptrdiff_t in_step, float* out, ptrdiff_t out_step,
                            const float* table, const float* roots) {
    Lanes z[RADIX];
#pragma GCC unroll 8
    for (int q = 0; q < RADIX; ++q) load<INVERSE>(in + q * in_step, z[q]);
    if (table) twiddle<T>(z, table);
    dft(z, roots);
#pragma GCC unroll 8
    for (int q = 0; q < RADIX; ++q) store<INVERSE>(z[q], out + q * out_step);
}

template <int RADIX, bool INVERSE, typename T>
IRSTD_INLINE void run_stage(const Stage& stage, ConstLine in, Line out) {
    constexpr int TABLE = (RADIX - 1) * TWIDDLE_FLOATS<T>;
    const ptrdiff_t in_step = in.stride * stage.step, out_step = out.stride * stage.step;
    const auto at = [&](int block, int place, const float* table) __attribute__((always_inline)) {
        butterfly<RADIX, INVERSE, T>(in.data + block * RADIX * in_step + place * in.stride, in_step,
                                     out.data + block * RADIX * out_step + place * out.stride,
                                     out_step, table, stage.roots);
    };
    if constexpr (INVERSE) {
        for (int block = 0; block < stage.blocks; ++block)
            for (int place = 0; place < stage.step; ++place)
                at(block, place, stage.by_place + place * TABLE);
    } else {
        for (int place = 0; place < stage.step; ++place) at(0, place, nullptr);
        for (int block = 1; block < stage.blocks; ++block) {
            const float* table = stage.by_block + block * TABLE;
            for (int place = 0; place < stage.step; ++place) at(block, place, table);
        }
    }
}

// A prime radix without a butterfly of its own: radix^2 operations.
template <bool INVERSE, typename T>
IRSTD_INLINE void run_prime_stage(const Stage& stage, ConstLine in, Line out, float* scratch) {
    const ptrdiff_t table_size = (stage.radix - 1) * TWIDDLE_FLOATS<T>;
    Lanes* z = reinterpret_cast<Lanes*>(scratch);
    Lanes* y = z + stage.radix;
    const auto index = [&](int block, int q, int place) __attribute__((always_inline)) {
        return static_cast<ptrdiff_t>(block * stage.radix + q) * stage.step + place;
    };
    for (int block = 0; block < stage.blocks; ++block)
        for (int place = 0; place < stage.step; ++place) {
            const float* table = INVERSE ? stage.by_place + place * table_size
                                         : stage.by_block + block * table_size;
            for (int q = 0; q < stage.radix; ++q) {
                load<INVERSE>(in.data + index(block, q, place) * in.stride, z[q]);
                if (q > 0) twiddle<T>(z[q], table + (q - 1) * TWIDDLE_FLOATS<T>);
            }
            dft_odd(stage.radix, z, stage.roots, y);
            for (int q = 0; q < stage.radix; ++q)
                store<INVERSE>(y[q], out.data + index(block, q, place) * out.stride);
        }
}

template <bool INVERSE, typename T>
IRSTD_INLINE void run_any_stage(const Stage& stage, ConstLine in, Line out, float* scratch) {
    switch (stage.radix) {
        case 2: return run_stage<2, INVERSE, T>(stage, in, out);
        case 3: return run_stage<3, INVERSE, T>(stage, in, out);
        case 4: return run_stage<4, INVERSE, T>(stage, in, out);
        case 5: return run_stage<5, INVERSE, T>(stage, in, out);
        case 8: return run_stage<8, INVERSE, T>(stage, in, out);
        default: return run_prime_stage<INVERSE, T>(stage, in, out, scratch);
    }
}

__attribute__((noinline)) IRSTD_CLONES void forward_stage(const Stage& stage, ConstLine in, Line out, float* scratch) {
    run_any_stage<false, float>(stage, in, out, scratch);
}

__attribute__((noinline)) IRSTD_CLONES void inverse_stage(const Stage& stage, Line in, Line out, float* scratch) {
    run_any_stage<true, float>(stage, in, out, scratch);
}

__attribute__((noinline)) IRSTD_CLONES void inverse_stage_of_lanes(const Stage& stage, Line in,
                                                                   Line out, float* scratch) {
    run_any_stage<true, Pixels>(stage, in, out, scratch);
}

// All stages of the forward transform, the last of which writes to `out`; returns where the values
// are: there, or still in `in` if there is no stage.
inline ConstLine run_forward(const Fourier& fourier, ConstLine in, Line out, float* scratch) {
    for (const Stage& stage : fourier.stages) {
        forward_stage(stage, in, out, scratch);
        in = out;
    }
    return in;
}

// All stages of the inverse transform, within `work` but for the last, which writes to `out`.
inline void run_inverse(const Fourier& fourier, Line work, Line out, float* scratch) {
    const auto run = fourier.lanes > 1 ? inverse_stage_of_lanes : inverse_stage;
    for (size_t i = fourier.stages.size(); i-- > 0;)
        run(fourier.stages[i], work, i == 0 ? out : work, scratch);
}

// Exchange registers and lanes.
IRSTD_INLINE void transpose(Pixels (&a)[LANES]) {
    typedef int Indices __attribute__((vector_size(sizeof(Pixels))));
    static_assert(LANES == 8);
    Pixels b[LANES];
#pragma GCC unroll 4
    for (int i = 0; i < LANES; i += 2) {
        b[i] = __builtin_shuffle(a[i], a[i + 1], Indices{0, 8, 1, 9, 4, 12, 5, 13});
        b[i + 1] = __builtin_shuffle(a[i], a[i + 1], Indices{2, 10, 3, 11, 6, 14, 7, 15});
    }
#pragma GCC unroll 2
    for (int i = 0; i < LANES; i += 4)
#pragma GCC unroll 2
        for (int k = 0; k < 2; ++k) {
            const Pixels low = b[i + k], high = b[i + k + 2];
            a[i + 2 * k] = __builtin_shuffle(low, high, Indices{0, 1, 8, 9, 4, 5, 12, 13});
            a[i + 2 * k + 1] = __builtin_shuffle(low, high, Indices{2, 3, 10, 11, 6, 7, 14, 15});
        }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        const Pixels low = a[i], high = a[i + 4];
        a[i] = __builtin_shuffle(low, high, Indices{0, 1, 2, 3, 8, 9, 10, 11});
        a[i + 4] = __builtin_shuffle(low, high, Indices{4, 5, 6, 7, 12, 13, 14, 15});
    }
}

IRSTD_INLINE void transpose(Lanes (&z)[LANES]) {
    Pixels parts[LANES];
#pragma GCC unroll 8
    for (int l = 0; l < LANES; ++l) parts[l] = z[l].re;
    transpose(parts);
#pragma GCC unroll 8
    for (int l = 0; l < LANES; ++l) z[l].re = parts[l], parts[l] = z[l].im;
    transpose(parts);
#pragma GCC unroll 8
    for (int l = 0; l < LANES; ++l) z[l].im = parts[l];
}

}  // namespace irstd::spectral_split
