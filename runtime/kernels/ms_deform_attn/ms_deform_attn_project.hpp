// The linear layers of the deformable attention module: rows of activations by panels of 16 columns of
// weights. A panel stays in the nearest cache while the rows of a band pass it.
//
// Integer products are of 16 by 16 bits, two added to 32 bits: exact for activations in u8 and weights
// in s8, where the instruction for bytes saturates, and on AVX2 no slower, because the sums of that
// one take a second multiplication to widen.
//
// No include guard: compiled once for each generation of processors, in the namespace IRSTD_ISA.

namespace irstd::ms_deform_attn::IRSTD_ISA {

constexpr int ROWS = 6;  // by two vectors of columns: 12 sums, which leaves 4 registers of 16
constexpr int VECTORS = PANEL / VECTOR_FLOATS;

using FloatVector = Floats<VECTOR_FLOATS>::Vector;
typedef int32_t IntVector __attribute__((vector_size(IRSTD_VECTOR_BYTES), aligned(4), may_alias));

// Two products of 16 bits in each 32, added.
inline IntVector products(IntVector a, IntVector b) {
#if IRSTD_VECTOR_BYTES >= 64
    return (IntVector)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif IRSTD_VECTOR_BYTES >= 32
    return (IntVector)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#else
    return (a << 16 >> 16) * (b << 16 >> 16) + (a >> 16) * (b >> 16);
#endif
}

// R rows by one panel, [depth][PANEL].
template <int R>
inline void multiply(const float* rows, size_t stride, int depth, const float* panel,
                     FloatVector (&out)[R][VECTORS]) {
    FloatVector sum[R][VECTORS] = {};
    for (int k = 0; k < depth; ++k) {
        const FloatVector* weights = reinterpret_cast<const FloatVector*>(panel + k * PANEL);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) sum[r][v] += rows[r * stride + k] * weights[v];
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) out[r][v] = sum[r][v];
}

// R rows of an even depth by one panel, [depth / 2][PANEL][2].
template <int R>
inline void multiply(const int16_t* rows, size_t stride, int depth, const int16_t* panel,
                     FloatVector (&out)[R][VECTORS]) {
    IntVector sum[R][VECTORS] = {};
    for (int k = 0; k < depth; k += 2) {
        const IntVector* weights = reinterpret_cast<const IntVector*>(panel + k * PANEL);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            int32_t pair;
            memcpy(&pair, rows + r * stride + k, sizeof pair);
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) sum[r][v] += products(IntVector{} + pair, weights[v]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) out[r][v] = __builtin_convertvector(sum[r][v], FloatVector);
}

// The nearest whole number from 0 to 255, of two equally near ones the even.
inline float to_byte(float number) {
    constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest whole number
    number = number > 0.0f ? number : 0.0f;
    number = number < 255.0f ? number : 255.0f;
    return number + ROUND - ROUND;
}

// What `project` writes to: rows of `stride` numbers.
struct FloatRows {
    float* first;
    size_t stride;

    void store(int row, int column, const float* numbers, int count) const {
        float* out = first + row * stride + column;
        for (int i = 0; i < count; ++i) out[i] = numbers[i];
    }
};

struct ByteRows {
    uint8_t* first;
    size_t stride;

    void store(int row, int column, const float* numbers, int count) const {
        uint8_t* out = first + row * stride + column;
        for (int i = 0; i < count; ++i) out[i] = static_cast<uint8_t>(to_byte(numbers[i]));
    }
};

template <int R, class Number, class Rows>
inline void project_rows(const Linear& linear, const Number* in, size_t stride, int panel, int row,
                         const Rows& out) {
    const Number* weights = static_cast<const Number*>(linear.panels) +
                            static_cast<size_t>(panel) * linear.depth * PANEL;
    FloatVector sum[R][VECTORS];
    multiply<R>(in + row * stride, stride, linear.depth, weights, sum);
    const int column = panel * PANEL, left = linear.columns - column;
    const FloatVector* scale = reinterpret_cast<const FloatVector*>(linear.scale + column);
    const FloatVector* shift = reinterpret_cast<const FloatVector*>(linear.shift + column);
    for (int r = 0; r < R; ++r) {
        FloatVector numbers[VECTORS];
        for (int v = 0; v < VECTORS; ++v) numbers[v] = sum[r][v] * scale[v] + shift[v];
        const float* first = reinterpret_cast<const float*>(numbers);
        if (left >= PANEL)
            out.store(row + r, column, first, PANEL);
        else
            out.store(row + r, column, first, left);
    }
}

// out = scale * (in * weights) + shift for `count` rows.
template <class Number, class Rows>
IRSTD_ONCE void project(const Linear& linear, const Number* in, size_t stride, int count,
                    const Rows& out) {
    for (int panel = 0; panel * PANEL < linear.columns; ++panel) {
        int row = 0;
        for (; row + ROWS <= count; row += ROWS)
            project_rows<ROWS>(linear, in, stride, panel, row, out);
        for (; row < count; ++row) project_rows<1>(linear, in, stride, panel, row, out);
    }
}

// Activations in u8, less their zero, as 16 bits. Returns whether the rows are finite.
IRSTD_ONCE bool quantize(const float* in, int count, int channels, int depth, float scale, float zero,
                     int16_t* out) {
    int32_t most = 0;
    for (int row = 0; row < count; ++row, in += channels, out += depth) {
        for (int c = 0; c < channels; ++c) {
            most = larger(most, size_bits(in[c]));
            out[c] = static_cast<int16_t>(to_byte(in[c] / scale + zero) - zero);
        }
        for (int c = channels; c < depth; ++c) out[c] = 0;
    }
    return most < INFINITY_BITS;
}

}  // namespace irstd::ms_deform_attn::IRSTD_ISA
