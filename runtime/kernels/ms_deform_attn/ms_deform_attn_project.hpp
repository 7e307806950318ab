// The linear layers of the deformable attention module: rows of activations by panels of 16 columns
// of weights. A panel stays in the nearest cache while the rows of a band pass it.
//
// Integer products are exact. Bytes: four products of u8 by s8 are added to 32 bits; without VNNI
// by way of 16 bits, which hold two if weights have 7 bits, -64 to 64. Words: two products of 16
// by 16.
//
// No include guard: compiled once for each generation of processors, in the namespace IRSTD_ISA.

namespace irstd::ms_deform_attn::IRSTD_ISA {

constexpr int VECTORS = PANEL / VECTOR_FLOATS;

using FloatVector = Floats<VECTOR_FLOATS>::Vector;
typedef int32_t IntVector __attribute__((vector_size(IRSTD_VECTOR_BYTES), aligned(4), may_alias));
typedef uint8_t ByteVector __attribute__((vector_size(VECTOR_FLOATS), aligned(1), may_alias));

// Adds to each sum the four products of the bytes, unsigned and signed, in its 32 bits.
inline IntVector add_products(IntVector sum, const uint8_t*, IntVector a, IntVector b) {
#if IRSTD_VECTOR_BYTES >= 64
    return (IntVector)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
#elif IRSTD_VECTOR_BYTES >= 32
    const __m256i pairs = _mm256_maddubs_epi16((__m256i)a, (__m256i)b);
    return sum + (IntVector)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#else
    return sum + (a & 255) * (b << 24 >> 24) + (a >> 8 & 255) * (b << 16 >> 24) +
           (a >> 16 & 255) * (b << 8 >> 24) + (a >> 24 & 255) * (b >> 24);
#endif
}

// The same of two products of 16 bits.
inline IntVector add_products(IntVector sum, const int16_t*, IntVector a, IntVector b) {
#if IRSTD_VECTOR_BYTES >= 64
    return (IntVector)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
#elif IRSTD_VECTOR_BYTES >= 32
    return sum + (IntVector)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#else
    return sum + (a << 16 >> 16) * (b << 16 >> 16) + (a >> 16) * (b >> 16);
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

// R rows of bytes or words by one panel, [depth / n][PANEL][n], where 32 bits hold n of them.
template <int R, class Whole, class Weight>
inline void multiply_whole(const Whole* rows, size_t stride, int depth, const Weight* panel,
                           FloatVector (&out)[R][VECTORS]) {
    constexpr int TOGETHER = sizeof(int32_t) / sizeof(Whole);
    IntVector sum[R][VECTORS] = {};
    for (int k = 0; k < depth; k += TOGETHER) {
        const IntVector* weights = reinterpret_cast<const IntVector*>(panel + k * PANEL);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            int32_t together;
            memcpy(&together, rows + r * stride + k, sizeof together);
            const IntVector everywhere = IntVector{} + together;
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v)
                sum[r][v] = add_products(sum[r][v], rows, everywhere, weights[v]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v)
            out[r][v] = __builtin_convertvector(sum[r][v], FloatVector);
}

template <int R>
inline void multiply(const uint8_t* rows, size_t stride, int depth, const int8_t* panel,
                     FloatVector (&out)[R][VECTORS]) {
    multiply_whole<R>(rows, stride, depth, panel, out);
}

template <int R>
inline void multiply(const int16_t* rows, size_t stride, int depth, const int16_t* panel,
                     FloatVector (&out)[R][VECTORS]) {
    multiply_whole<R>(rows, stride, depth, panel, out);
}

// ROWS by two vectors of columns are as many sums as leave registers for what is added to them.
template <class Number>
struct Layer {
    using Weight = Number;
    static constexpr int ROWS = 6;
};
template <>
struct Layer<uint8_t> {
    using Weight = int8_t;
    static constexpr int ROWS = 4;
};

// Numbers from 0 to 255 to bytes. g++ 12 does it one by one.
inline ByteVector narrow(IntVector numbers) {
#if IRSTD_VECTOR_BYTES >= 64
    return (ByteVector)_mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)numbers);
#elif IRSTD_VECTOR_BYTES >= 32
    const __m128i low = _mm256_castsi256_si128((__m256i)numbers);
    const __m128i words = _mm_packs_epi32(low, _mm256_extracti128_si256((__m256i)numbers, 1));
    const int64_t bytes = _mm_cvtsi128_si64(_mm_packus_epi16(words, words));
    return (ByteVector)bytes;
#else
    return __builtin_convertvector(numbers, ByteVector);
#endif
}

// What `project` writes to: rows of `stride` numbers.
struct FloatRows {
    float* first;
    size_t stride;

    void store(int row, int column, const FloatVector (&numbers)[VECTORS], int count) const {
        float* out = first + row * stride + column;
        if (count < PANEL)
            memcpy(out, numbers, count * sizeof(float));
        else
            memcpy(out, numbers, sizeof numbers);
    }
};

// The nearest whole numbers from 0 to 255, of two equally near ones the even.
struct ByteRows {
    uint8_t* first;
    size_t stride;

    void store(int row, int column, const FloatVector (&numbers)[VECTORS], int count) const {
        ByteVector bytes[VECTORS];
        for (int v = 0; v < VECTORS; ++v) bytes[v] = to_bytes(numbers[v]);
        uint8_t* out = first + row * stride + column;
        if (count < PANEL)
            memcpy(out, bytes, count);
        else
            memcpy(out, bytes, sizeof bytes);
    }
    static ByteVector to_bytes(FloatVector numbers) {
        const FloatVector least = {}, most = least + 255.0f;
        const FloatVector round =
            least + 12582912.0f;  // 1.5 * 2^23: leaves the nearest whole number
        numbers = numbers > least ? numbers : least;
        numbers = numbers < most ? numbers : most;
        return narrow(__builtin_convertvector(numbers + round - round, IntVector));
    }
};

template <int R, class Number, class Rows>
inline void project_rows(const Linear& linear, const Number* in, size_t stride, int panel, int row,
                         const Rows& out) {
    const auto* weights = static_cast<const typename Layer<Number>::Weight*>(linear.panels) +
                          static_cast<size_t>(panel) * linear.depth * PANEL;
    FloatVector sum[R][VECTORS];
    multiply<R>(in + row * stride, stride, linear.depth, weights, sum);
    const int column = panel * PANEL, left = linear.columns - column;
    const FloatVector* scale = reinterpret_cast<const FloatVector*>(linear.scale + column);
    const FloatVector* shift = reinterpret_cast<const FloatVector*>(linear.shift + column);
    for (int r = 0; r < R; ++r) {
        FloatVector numbers[VECTORS];
        for (int v = 0; v < VECTORS; ++v) numbers[v] = sum[r][v] * scale[v] + shift[v];
        out.store(row + r, column, numbers, left);
    }
}

// out = scale * (in * weights) + shift for `count` rows.
template <class Number, class Rows>
IRSTD_ONCE void project(const Linear& linear, const Number* in, size_t stride, int count,
                        const Rows& out) {
    for (int panel = 0; panel * PANEL < linear.columns; ++panel) {
        constexpr int ROWS = Layer<Number>::ROWS;
        int row = 0;
        for (; row + ROWS <= count; row += ROWS)
            project_rows<ROWS>(linear, in, stride, panel, row, out);
        for (; row < count; ++row) project_rows<1>(linear, in, stride, panel, row, out);
    }
}

// Activations in u8, rows of `stride` bytes. Returns whether they are finite.
IRSTD_ONCE bool quantize(const float* in, int count, int channels, float scale, float zero,
                         uint8_t* out, size_t stride) {
    const float inverse = 1.0f / scale;
    IntVector most = {};
    const auto to_bytes = [&](FloatVector numbers) {
        IntVector size;
        memcpy(&size, &numbers, sizeof size);
        size &= 0x7fffffff;
        most = most > size ? most : size;
        return ByteRows::to_bytes(numbers * inverse + zero);
    };
    for (int row = 0; row < count; ++row, in += channels, out += stride) {
        int c = 0;
        for (; c + VECTOR_FLOATS <= channels; c += VECTOR_FLOATS) {
            *reinterpret_cast<ByteVector*>(out + c) =
                to_bytes(*reinterpret_cast<const FloatVector*>(in + c));
        }
        for (; c < channels; ++c) out[c] = to_bytes(FloatVector{} + in[c])[0];
    }
    int32_t all = 0;
    for (int i = 0; i < VECTOR_FLOATS; ++i) all = larger(all, most[i]);
    return all < INFINITY_BITS;
}

}  // namespace irstd::ms_deform_attn::IRSTD_ISA
