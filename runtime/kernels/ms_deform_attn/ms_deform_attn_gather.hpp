// Phase two of deformable attention on a CPU: channels as lanes, nothing but loads and
// multiply-adds. Mixed with phase one, the loads of weights would wait for their stores.
//
// No include guard: compiled once for each generation of processors, in the namespace IRSTD_ISA.

namespace irstd::ms_deform_attn::IRSTD_ISA {

// The inputs of a tile a few tiles on: those of a query are fetched with every query, so that
// memory works while the gather computes. Null where they are in a cache already.
struct Ahead {
    const float *offsets, *logits;
    size_t stride;  // points from a query to the next
    int points;

    // Inline, because g++ removes calls of functions that have no effect but this.
    __attribute__((always_inline)) void fetch(int lane) const {
        if (!offsets) return;
        const float* xy = offsets + lane * stride * 2;
        const float* logit = logits + lane * stride;
        __builtin_prefetch(xy), __builtin_prefetch(xy + 2 * points - 1);
        __builtin_prefetch(logit), __builtin_prefetch(logit + points - 1);
    }
};

// Write past the cache what nobody reads soon, if whole lines are written. The width is a parameter
// because a type would lose its attributes as one.
template <int WIDTH>
inline void store(float* out, typename Floats<WIDTH>::Vector value, bool is_streamed) {
#if IRSTD_VECTOR_BYTES >= 64
    if constexpr (WIDTH == 16)
        if (is_streamed) return _mm512_stream_ps(out, (__m512)value);
#endif
#if IRSTD_VECTOR_BYTES >= 32
    if constexpr (WIDTH == 8)
        if (is_streamed) return _mm256_stream_ps(out, (__m256)value);
#endif
    (void)is_streamed;
    *reinterpret_cast<typename Floats<WIDTH>::Vector*>(out) = value;
}

template <int D>
inline bool is_streamable(const void* out, size_t stride) {
    constexpr size_t LINE = 64;
    return D * sizeof(float) % LINE == 0 && stride * sizeof(float) % LINE == 0 &&
           reinterpret_cast<uintptr_t>(out) % LINE == 0;
}

// One head of `count` queries, `stride` numbers apart in out.
template <int D>
inline void gather(const FloatMap& map, const MapLevels& levels, const FloatPoints& points,
                   const Ahead& ahead, int count, float* out, size_t stride) {
    constexpr int WIDTH = D < VECTOR_FLOATS ? D : VECTOR_FLOATS, PARTS = D / WIDTH;
    using Vector = typename Floats<WIDTH>::Vector;
    const bool is_streamed = is_streamable<D>(out, stride);
    for (int lane = 0; lane < count; ++lane, out += stride) {
        ahead.fetch(lane);
        Vector left[PARTS] = {}, right[PARTS] = {};  // two chains of additions are faster than one
        for (int l = 0; l < levels.count; ++l) {
            const size_t row = static_cast<size_t>(levels.level[l].stride) * D;
            for (int k = l * levels.points; k < (l + 1) * levels.points; ++k) {
                const float* at = map.values + points.position[k][lane];
                const Vector* above = reinterpret_cast<const Vector*>(at);
                const Vector* below = reinterpret_cast<const Vector*>(at + row);
                const float w00 = points.w00[k][lane], w01 = points.w01[k][lane];
                const float w10 = points.w10[k][lane], w11 = points.w11[k][lane];
#pragma GCC unroll 8
                for (int i = 0; i < PARTS; ++i) {
                    left[i] += w00 * above[i];
                    right[i] += w01 * above[PARTS + i];
                    left[i] += w10 * below[i];
                    right[i] += w11 * below[PARTS + i];
                }
            }
        }
#pragma GCC unroll 8
        for (int i = 0; i < PARTS; ++i)
            store<WIDTH>(out + i * WIDTH, left[i] + right[i], is_streamed);
    }
}

// One channel: queries stay lanes.
template <>
inline void gather<1>(const FloatMap& map, const MapLevels& levels, const FloatPoints& points,
                      const Ahead& ahead, int count, float* out, size_t stride) {
    float sum[TILE] = {};
    for (int l = 0; l < levels.count; ++l) {
        const int row = levels.level[l].stride;
        for (int k = l * levels.points; k < (l + 1) * levels.points; ++k)
            for (int lane = 0; lane < TILE; ++lane) {
                const float* above = map.values + points.position[k][lane];
                const float* below = above + row;
                sum[lane] += points.w00[k][lane] * above[0] + points.w01[k][lane] * above[1] +
                             points.w10[k][lane] * below[0] + points.w11[k][lane] * below[1];
            }
    }
    for (int lane = 0; lane < count; ++lane) ahead.fetch(lane), out[lane * stride] = sum[lane];
}

// Sums of D samples in 16 bits, 255 of them to a unit of value.
template <int D>
struct Samples;

#if IRSTD_VECTOR_BYTES >= 32
template <>
struct Samples<8> {
    __m128i sum;

    void add(const int8_t* above, const int8_t* below, int weights_above, int weights_below,
             int attention) {
        const __m128i sample =
            _mm_add_epi16(products(weights_above, above), products(weights_below, below));
        sum = _mm_add_epi16(sum, _mm_mulhrs_epi16(sample, _mm_set1_epi32(attention)));
    }
    void store(float* out, float scale, float shift, bool) const {
        _mm256_storeu_ps(out, widen(sum, scale, shift));
    }
    static __m128i products(int weights, const int8_t* pairs) {
        return _mm_maddubs_epi16(_mm_set1_epi32(weights),
                                 _mm_loadu_si128(reinterpret_cast<const __m128i*>(pairs)));
    }
    static __m256 widen(__m128i sums, float scale, float shift) {
        return _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(sums)),
                               _mm256_set1_ps(scale), _mm256_set1_ps(shift));
    }
};

template <>
struct Samples<16> {
    __m256i sum;

    void add(const int8_t* above, const int8_t* below, int weights_above, int weights_below,
             int attention) {
        const __m256i sample =
            _mm256_add_epi16(products(weights_above, above), products(weights_below, below));
        sum = _mm256_add_epi16(sum, _mm256_mulhrs_epi16(sample, _mm256_set1_epi32(attention)));
    }
    void store(float* out, float scale, float shift, bool is_streamed) const {
        const __m256 low = Samples<8>::widen(_mm256_castsi256_si128(sum), scale, shift);
        const __m256 high = Samples<8>::widen(_mm256_extracti128_si256(sum, 1), scale, shift);
        IRSTD_ISA::store<8>(out, low, is_streamed), IRSTD_ISA::store<8>(out + 8, high, is_streamed);
    }
    static __m256i products(int weights, const int8_t* pairs) {
        return _mm256_maddubs_epi16(_mm256_set1_epi32(weights),
                                    _mm256_loadu_si256(reinterpret_cast<const __m256i*>(pairs)));
    }
};

template <>
struct Samples<32> {
    Samples<16> low, high;

    void add(const int8_t* above, const int8_t* below, int weights_above, int weights_below,
             int attention) {
        low.add(above, below, weights_above, weights_below, attention);
        high.add(above + 32, below + 32, weights_above, weights_below, attention);
    }
    void store(float* out, float scale, float shift, bool is_streamed) const {
        low.store(out, scale, shift, is_streamed), high.store(out + 16, scale, shift, is_streamed);
    }
};
#else
template <int D>
struct Samples {
    int16_t sum[D];

    void add(const int8_t* above, const int8_t* below, int weights_above, int weights_below,
             int attention) {
        const int w00 = weights_above & 255, w01 = weights_above >> 8 & 255;
        const int w10 = weights_below & 255, w11 = weights_below >> 8 & 255;
        const int share = attention & 0x7fff;
        for (int c = 0; c < D; ++c) {
            const int sample = w00 * above[2 * c] + w01 * above[2 * c + 1] + w10 * below[2 * c] +
                               w11 * below[2 * c + 1];
            sum[c] = static_cast<int16_t>(sum[c] + ((sample * share + 0x4000) >> 15));
        }
    }
    void store(float* out, float scale, float shift, bool) const {
        for (int c = 0; c < D; ++c) out[c] = static_cast<float>(sum[c]) * scale + shift;
    }
};
#endif

// To float32, or to the sums themselves in 16 bits for the module. There the maps of all heads and
// the layers' weights compete for the caches, and samples are fetched a few queries ahead.
template <int D, class Out>
inline void gather(const ByteMap& map, const MapLevels& levels, const BytePoints& points,
                   const Ahead& ahead, int count, Out* out, size_t stride) {
    constexpr bool IS_MODULE = sizeof(Out) == sizeof(int16_t);
    constexpr int LANES_AHEAD = 4;
    const bool is_streamed = is_streamable<D>(out, stride);
    for (int lane = 0; lane < count; ++lane, out += stride) {
        ahead.fetch(lane);
        Samples<D> samples = {};
        for (int l = 0; l < levels.count; ++l) {
            const size_t row = static_cast<size_t>(levels.level[l].stride) * (2 * D);
            for (int k = l * levels.points; k < (l + 1) * levels.points; ++k) {
                if constexpr (IS_MODULE) {
                    const int later = points.position[k][(lane + LANES_AHEAD) % TILE];
                    __builtin_prefetch(map.pairs + later);
                    __builtin_prefetch(map.pairs + later + row);
                }
                const int8_t* above = map.pairs + points.position[k][lane];
                samples.add(above, above + row, points.above[k][lane], points.below[k][lane],
                            points.attention[k][lane]);
            }
        }
        if constexpr (IS_MODULE)
            memcpy(out, &samples, D * sizeof(int16_t));
        else
            samples.store(out, map.scale * BYTE_SUM_UNIT, map.shift, is_streamed);
    }
}

}  // namespace irstd::ms_deform_attn::IRSTD_ISA
