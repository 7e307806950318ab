// The low band of the spectral split on a CPU, channel by channel, each in the second cache: columns
// forward, then row after row forward, the response and back, then columns back. Every butterfly is
// made of whole vectors of eight. Along columns the lanes are neighbouring pixels, and two blocks of
// them are the real and the imaginary part of one transform. A row of W = 8 M numbers is transformed
// over its M vectors; eight vectors are transposed, and the last butterfly of eight is again one
// between registers. The response stands between the two halves of one function.
#include "spectral_split_cpu.hpp"

#include <algorithm>
#include <vector>

#include "../buffer.hpp"
#include "../status.hpp"
#include "spectral_split_fourier.hpp"

namespace irstd::spectral_split {
namespace {

constexpr int STRIP_PX = 2 * LANES;  // columns transformed together: a cache line

int greatest_common_divisor(int a, int b) { return b ? greatest_common_divisor(b, a % b) : a; }

// What depends on the size of the map only.
struct Plan {
    Plan(int height, int width)
        : height(height),
          width(width),
          rows(height / 2 + 1),
          blocks((width + STRIP_PX - 1) / STRIP_PX * 2),
          vectors(width % STRIP_PX ? 0 : width / LANES),
          columns(height, height % 4 == 0 ? 4 : height % 2 == 0 ? 2 : 1, 1),
          across(vectors ? vectors : width, vectors ? greatest_common_divisor(vectors, LANES) : 1, vectors ? LANES : 1),
          rows_together(LANES / across.last),
          // The padding keeps rows off each other's cache sets.
          pitch(static_cast<ptrdiff_t>(blocks + (rows_together == 1 ? 2 : 0)) * LANES_FLOATS),
          v_squared(vectors ? static_cast<size_t>(rows_together) * width : width),
          u_squared(static_cast<size_t>(padded_rows()) * std::max(vectors, 1)) {
        block_at.resize(columns.base.size());
        for (size_t block = 0; block < block_at.size(); ++block)
            block_at[columns.base[block]] = static_cast<int>(block);
        const auto square = [](float f) { return f * f; };
        const int per_row = std::max(vectors, 1);
        for (int u = 0; u < padded_rows(); ++u)
            std::fill_n(u_squared.data() + static_cast<size_t>(u) * per_row, per_row,
                        square(frequency(std::min(u, height / 2), height)));
        if (!vectors) {
            for (int i = 0; i < width; ++i)
                v_squared.data()[i] = square(frequency(across.frequency(i), width));
            return;
        }
        const Roots roots(width);
        for (int row = 0; row < rows_together; ++row)
            for (const int frequency : across.base)
                for (int q = 1; q < across.last; ++q)
                    append_lanes(by_block, [&](int) { return roots(frequency * q, vectors); });
        for (int i = 0; i < rows_together * vectors; i += LANES) {
            const auto k = [&](int lane) { return across.frequency((i + lane) % vectors); };
            for (int l = 0; l < LANES; ++l)
                for (int lane = 0; lane < LANES; ++lane)
                    v_squared.data()[i * LANES + l * LANES + lane] =
                        square(frequency(k(lane) + vectors * l, width));
            for (int l = 1; l < LANES; ++l)
                append_lanes(twiddles, [&](int lane) { return roots(l * k(lane), width); });
        }
    }

    int padded_rows() const {
        const int together = vectors ? rows_together : LANES;
        return (rows + together - 1) / together * together;
    }

    const int height, width;
    const int rows;     // of the spectrum: frequencies u from 0 to height / 2
    const int blocks;   // vectors of neighbouring pixels in a row, an even number
    const int vectors;  // the same where they are all full, else 0
    const Fourier columns, across;
    const int rows_together;  // in which the vectors are a multiple of LANES
    const ptrdiff_t pitch;    // of a row of the spectrum, floats
    std::vector<int> block_at;  // of the columns' last stage, by lowest frequency
    Buffer v_squared;  // (groups of LANES vectors, LANES frequencies, LANES); or (width) if not vectors
    Buffer u_squared;  // (rows of the spectrum, vectors); or (rows)
    // Twiddles for each lane: across, of the last stage for all blocks of the rows together, and
    // between the vectors and the lanes, (groups, LANES - 1).
    std::vector<float> by_block, twiddles;
};

struct Workspace {
    explicit Workspace(const Plan& plan)
        : spectrum(static_cast<size_t>(plan.padded_rows()) * plan.pitch),
          tile(static_cast<size_t>(std::max(plan.height, plan.width)) * LANES_FLOATS),
          strip(static_cast<size_t>(plan.height) * STRIP_PX),
          scratch(std::max(plan.columns.scratch_floats(), plan.across.scratch_floats())) {}

    Buffer spectrum, tile, strip, scratch;
};

// Rows u of the spectra A and B of two blocks of real columns, out of the transform Z of A + iB at u
// and at -u; twice their value.
constexpr auto part = [](float* row, const Lanes& z, const Lanes& mirrored)
    __attribute__((always_inline)) {
    store<false>({z.re + mirrored.re, z.im - mirrored.im}, row);
    store<false>({z.im + mirrored.im, mirrored.re - z.re}, row + LANES_FLOATS);
};

constexpr auto join = [](const float* row, Lanes& z, Lanes& mirrored)
    __attribute__((always_inline)) {
    Lanes a, b;
    load<false>(row, a);
    load<false>(row + LANES_FLOATS, b);
    z = {a.re - b.im, a.im + b.re};
    mirrored = {a.re + b.im, b.re - a.im};
};

template <int LAST, bool INVERSE>
IRSTD_INLINE void load_block(ConstLine line, int block, Lanes (&z)[LAST]) {
#pragma GCC unroll 4
    for (int q = 0; q < LAST; ++q) load<INVERSE>(line.data + (block * LAST + q) * line.stride, z[q]);
}

// Calls `visit` with the rows of the spectrum that two opposite blocks of the last stage along columns
// are about, and with the values at the frequency u of the row and at -u. `ahead` is the row of the
// lowest frequency of z, `behind` that of w; `band` is from one frequency of a block to the next.
template <int LAST, typename Row, typename Visit>
IRSTD_INLINE void visit_pairs(Row* ahead, Row* behind, ptrdiff_t band, Lanes (&z)[LAST],
                              Lanes (&w)[LAST], const Visit& visit) {
#pragma GCC unroll 4
    for (int q = 0; q < (LAST + 1) / 2; ++q) visit(ahead + q * band, z[q], w[LAST - 1 - q]);
#pragma GCC unroll 4
    for (int q = 0; q < LAST / 2; ++q) visit(behind + q * band, w[q], z[LAST - 1 - q]);
}

// The same for the blocks that are their own opposites.
template <int LAST, typename Row, typename Visit>
IRSTD_INLINE void visit_first(Row* row, ptrdiff_t band, Lanes (&z)[LAST], const Visit& visit) {
#pragma GCC unroll 4
    for (int q = 0; q <= LAST / 2; ++q) visit(row + q * band, z[q], z[(LAST - q) % LAST]);
}

template <int LAST, typename Row, typename Visit>
IRSTD_INLINE void visit_middle(Row* row, ptrdiff_t band, Lanes (&z)[LAST], const Visit& visit) {
#pragma GCC unroll 4
    for (int q = 0; q < LAST / 2; ++q) visit(row + q * band, z[q], z[LAST - 1 - q]);
}

template <int LAST>
IRSTD_INLINE void finish_columns(const Plan& plan, ConstLine in, float* spectrum) {
    const int blocks = plan.height / LAST;
    const ptrdiff_t pitch = plan.pitch, band = blocks * pitch;
    const float* table = plan.columns.last_by_block.data();
    const auto transform = [&](int low, Lanes (&z)[LAST]) __attribute__((always_inline)) {
        const int block = plan.block_at[low];
        load_block<LAST, false>(in, block, z);
        if (low > 0) twiddle<float>(z, table + block * (LAST - 1) * TWIDDLE_FLOATS<float>);
        dft(z);
    };
    Lanes z[LAST], w[LAST];
    transform(0, z);
    visit_first(spectrum, band, z, part);
    float *ahead = spectrum, *behind = spectrum + band;
    for (int low = 1; 2 * low < blocks; ++low) {
        ahead += pitch, behind -= pitch;
        transform(low, z);
        transform(blocks - low, w);
        visit_pairs(ahead, behind, band, z, w, part);
    }
    if (blocks % 2 == 0) {
        transform(blocks / 2, z);
        visit_middle(spectrum + blocks / 2 * pitch, band, z, part);
    }
}

template <int LAST>
IRSTD_INLINE void invert_block(Lanes (&z)[LAST], int block, Line out) {
    for (int q = 0; q < LAST; ++q) z[q] = swapped(z[q]);
    dft(z);
#pragma GCC unroll 4
    for (int q = 0; q < LAST; ++q) store<true>(z[q], out.data + (block * LAST + q) * out.stride);
}

template <int LAST>
IRSTD_INLINE void start_columns_back(const Plan& plan, const float* spectrum, Line out,
                                     const float* next) {
    const int blocks = plan.height / LAST;
    const ptrdiff_t pitch = plan.pitch, band = blocks * pitch;
    Lanes z[LAST], w[LAST];
    visit_first(spectrum, band, z, join);
    invert_block(z, 0, out);
    const float *ahead = spectrum, *behind = spectrum + band;
    for (int low = 1; 2 * low < blocks; ++low) {
        ahead += pitch, behind -= pitch;
#pragma GCC unroll 8
        for (int row = 0; row < 2 * LAST; ++row, next += plan.width) __builtin_prefetch(next, 1, 2);
        visit_pairs(ahead, behind, band, z, w, join);
        invert_block(z, plan.block_at[low], out);
        invert_block(w, plan.block_at[blocks - low], out);
    }
    if (blocks % 2 == 0) {
        visit_middle(spectrum + blocks / 2 * pitch, band, z, join);
        invert_block(z, plan.block_at[blocks / 2], out);
    }
}

IRSTD_CLONES void columns_forward(const Plan& plan, const float* x, Workspace& work) {
    const Line tile = {work.tile.data(), LANES_FLOATS};
    for (int left = 0; left < plan.width; left += STRIP_PX) {
        ConstLine in(x + left, plan.width);
        if (plan.width - left < STRIP_PX) {
            for (int y = 0; y < plan.height; ++y)
                std::copy_n(x + static_cast<size_t>(y) * plan.width + left, plan.width - left,
                            work.strip.data() + static_cast<size_t>(y) * STRIP_PX);
            in = ConstLine(work.strip.data(), STRIP_PX);
        }
        in = run_forward(plan.columns, in, tile, work.scratch.data());
        float* spectrum = work.spectrum.data() + 2 * left;
        if (plan.columns.last == 4) finish_columns<4>(plan, in, spectrum);
        else if (plan.columns.last == 2) finish_columns<2>(plan, in, spectrum);
        else finish_columns<1>(plan, in, spectrum);
    }
}

IRSTD_CLONES void columns_back(const Plan& plan, Workspace& work, float* low) {
    const Line tile = {work.tile.data(), LANES_FLOATS};
    for (int left = 0; left < plan.width; left += STRIP_PX) {
        const bool is_whole = plan.width - left >= STRIP_PX;
        const Line out = is_whole ? Line{low + left, plan.width} : tile;
        const Line first = plan.columns.stages.empty() ? out : tile;
        const float* next = low + left + STRIP_PX;
        const float* spectrum = work.spectrum.data() + 2 * left;
        if (plan.columns.last == 4) start_columns_back<4>(plan, spectrum, first, next);
        else if (plan.columns.last == 2) start_columns_back<2>(plan, spectrum, first, next);
        else start_columns_back<1>(plan, spectrum, first, next);
        run_inverse(plan.columns, tile, out, work.scratch.data());
        if (!is_whole)
            for (int y = 0; y < plan.height; ++y)
                std::copy_n(tile.data + static_cast<size_t>(y) * STRIP_PX, plan.width - left,
                            low + static_cast<size_t>(y) * plan.width + left);
    }
}

// Transforms of LAST neighbours among LANES vectors; their twiddles are `next` floats apart.
template <int LAST>
IRSTD_INLINE void dft_neighbours(Lanes (&z)[LANES], const float* table, int next) {
#pragma GCC unroll 4
    for (int i = 0; i < LANES; i += LAST) {
        Lanes part[LAST];
        for (int q = 0; q < LAST; ++q) part[q] = z[i + q];
        twiddle<Pixels>(part, table + i / LAST * next);
        dft(part);
        for (int q = 0; q < LAST; ++q) z[i + q] = part[q];
    }
}

// The end of the transform along a row, the response, and the begin of the way back, for LANES
// vectors that are neighbours in the permuted order.
template <int LAST>
IRSTD_INLINE void respond(float* vectors, const float* by_block, const float* by_place,
                          const float* twiddles, const float* v_squared, const Pixels& u_squared,
                          float inverse_cutoff, float scale) {
    Lanes z[LANES];
#pragma GCC unroll 8
    for (int i = 0; i < LANES; ++i) load<false>(vectors + i * LANES_FLOATS, z[i]);
    dft_neighbours<LAST>(z, by_block, (LAST - 1) * TWIDDLE_FLOATS<Pixels>);
    transpose(z);
    twiddle<Pixels>(z, twiddles);
    dft(z);
#pragma GCC unroll 8
    for (int l = 0; l < LANES; ++l) {
        Pixels v;
        irstd::load(v_squared + l * LANES, v);
        const Pixels response = butterworth<Pixels>(u_squared, v * inverse_cutoff, scale);
        z[l] = swapped(Lanes{z[l].re * response, z[l].im * response});
    }
    dft(z);
    transpose(z);
    dft_neighbours<LAST>(z, by_place, 0);
#pragma GCC unroll 8
    for (int i = 0; i < LANES; ++i) store<true>(z[i], vectors + i * LANES_FLOATS);
}

template <int LAST>
IRSTD_INLINE void filter_rows(const Plan& plan, Workspace& work, float inverse_cutoff, float scale,
                              const float* next) {
    const int groups = plan.rows_together * plan.vectors / LANES;
    const int share = (plan.height * plan.width / Buffer::LINE_PX + plan.rows - 1) / plan.rows *
                      plan.rows_together * Buffer::LINE_PX;
    for (int u = 0; u < plan.rows; u += plan.rows_together) {
        for (int i = 0; i < share; i += Buffer::LINE_PX) __builtin_prefetch(next + i, 0, 2);
        next += share;
        float* rows = work.spectrum.data() + u * plan.pitch;
        const auto line = [&](int row) __attribute__((always_inline)) {
            return Line{rows + row * plan.pitch, LANES_FLOATS};
        };
        for (int row = 0; row < plan.rows_together; ++row)
            run_forward(plan.across, line(row), line(row), work.scratch.data());
        const float* u_squared = plan.u_squared.data() + static_cast<size_t>(u) * plan.vectors;
        for (int group = 0; group < groups; ++group) {
            Pixels squared;
            irstd::load(u_squared + group * LANES, squared);
            const int block = group * LANES / LAST;
            respond<LAST>(rows + group * LANES * LANES_FLOATS,
                          plan.by_block.data() + block * (LAST - 1) * TWIDDLE_FLOATS<Pixels>,
                          plan.across.last_by_place.data(),
                          plan.twiddles.data() + group * (LANES - 1) * TWIDDLE_FLOATS<Pixels>,
                          plan.v_squared.data() + group * LANES * LANES, squared * inverse_cutoff,
                          inverse_cutoff, scale);
        }
        for (int row = 0; row < plan.rows_together; ++row)
            run_inverse(plan.across, line(row), line(row), work.scratch.data());
    }
}

// Rows of any width: LANES of them are transposed number by number.
IRSTD_INLINE void filter_rows_any(const Plan& plan, Workspace& work, float inverse_cutoff,
                                  float scale) {
    const Line tile = {work.tile.data(), LANES_FLOATS};
    for (int u = 0; u < plan.rows; u += LANES) {
        const auto exchange = [&](const auto& move) __attribute__((always_inline)) {
            for (int row = 0; row < LANES; ++row)
                for (int i = 0; i < plan.width; ++i) {
                    float* number = work.spectrum.data() + (u + row) * plan.pitch +
                                    i / LANES * LANES_FLOATS + i % LANES;
                    float* lane = tile.data + static_cast<ptrdiff_t>(i) * LANES_FLOATS + row;
                    move(number[0], lane[0]);
                    move(number[LANES], lane[LANES]);
                }
        };
        exchange([](float& number, float& lane) { lane = number; });
        run_forward(plan.across, tile, tile, work.scratch.data());
        Pixels squared;
        irstd::load(plan.u_squared.data() + u, squared);
        squared *= inverse_cutoff;
        for (int i = 0; i < plan.width; ++i) {
            Lanes z;
            load<false>(tile.data + static_cast<ptrdiff_t>(i) * LANES_FLOATS, z);
            const Pixels v = Pixels{} + plan.v_squared.data()[i] * inverse_cutoff;
            const Pixels response = butterworth<Pixels>(squared, v, scale);
            store<false>({z.re * response, z.im * response},
                         tile.data + static_cast<ptrdiff_t>(i) * LANES_FLOATS);
        }
        run_inverse(plan.across, tile, tile, work.scratch.data());
        exchange([](float& number, float& lane) { number = lane; });
    }
}

IRSTD_CLONES void filter(const Plan& plan, Workspace& work, float cutoff, const float* next) {
    const float inverse = inverse_square(cutoff);
    const float scale = 0.5f / (static_cast<float>(plan.height) * static_cast<float>(plan.width));
    if (!plan.vectors) return filter_rows_any(plan, work, inverse, scale);
    switch (plan.across.last) {
        case 8: return filter_rows<8>(plan, work, inverse, scale, next);
        case 4: return filter_rows<4>(plan, work, inverse, scale, next);
        default: return filter_rows<2>(plan, work, inverse, scale, next);
    }
}

}  // namespace
}  // namespace irstd::spectral_split

int irstd_spectral_split_low_f32(const float* x, const float* cutoff, float* low, int height,
                                 int width, int begin, int end) {
    using namespace irstd::spectral_split;
    return irstd::status_of([=] {
        const Plan plan(height, width);
        Workspace work(plan);
        const size_t size = static_cast<size_t>(height) * width;
        for (int channel = begin; channel < end; ++channel) {
            const float* next = x + (channel + 1 < end ? channel + 1 : channel) * size;
            columns_forward(plan, x + channel * size, work);
            filter(plan, work, cutoff[channel], next);
            columns_back(plan, work, low + channel * size);
        }
        return irstd::are_finite(cutoff + begin, end - begin);
    });
}
