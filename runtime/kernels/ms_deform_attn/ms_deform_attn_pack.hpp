// The values of a head to its map (ms_deform_attn_map.hpp).
//
// No include guard: compiled once for each generation of processors, in the namespace IRSTD_ISA.

namespace irstd::ms_deform_attn::IRSTD_ISA {

// Memory delivers strided lines late: they are asked for so many values before.
constexpr int VALUES_AHEAD = 128;

template <int D>
struct FloatPack {
    using Element = float;
    static constexpr int SIZE = D;  // elements of a position

    size_t stride;         // numbers from a value to the next
    int32_t most[D] = {};  // bits of the largest of each channel

    void border(float* map, int positions) { std::fill_n(map, positions * SIZE, 0.0f); }

    void row(const float* in, int width, float* map) {
        for (int x = 0; x < width; ++x, in += stride, map += SIZE) {
            for (int c = 0; c < D; c += 16)
                __builtin_prefetch(in + VALUES_AHEAD * stride + c, 0, 2);
            for (int c = 0; c < D; ++c) {
                const int32_t size = size_bits(in[c]);
                map[c] = in[c], most[c] = larger(most[c], size);
            }
        }
    }

    bool is_finite() const {
        int32_t all = 0;
        for (int c = 0; c < D; ++c) all = larger(all, most[c]);
        return all < INFINITY_BITS;
    }
};

template <int D>
struct BytePack {
    using Element = int8_t;
    static constexpr int SIZE = 2 * D;

    size_t stride;
    int8_t zero;  // less 128

    void border(int8_t* map, int positions) { std::fill_n(map, positions * SIZE, zero); }

    // The border before the row is the left neighbour of its first value, and the one after it the
    // right neighbour of its last.
    void row(const uint8_t* in, int width, int8_t* map) {
        int8_t* pairs = map - SIZE;
        for (int c = 0; c < D; ++c) pairs[2 * c + 1] = signed_of(in[c]);
        for (int x = 0; x + 1 < width; ++x, in += stride) {
            const uint8_t* right = in + stride;
            pairs += SIZE;
            __builtin_prefetch(in + VALUES_AHEAD * stride, 0, 2);
            for (int c = 0; c < D; ++c) {
                pairs[2 * c] = signed_of(in[c]);
                pairs[2 * c + 1] = signed_of(right[c]);
            }
        }
        pairs += SIZE;
        for (int c = 0; c < D; ++c) pairs[2 * c] = signed_of(in[c]), pairs[2 * c + 1] = zero;
    }

    static int8_t signed_of(uint8_t value) { return static_cast<int8_t>(value ^ 0x80); }
    bool is_finite() const { return true; }
};

// One channel in bytes is no less work than in float32.
struct SinglePack {
    using Element = float;
    static constexpr int SIZE = 1;

    size_t stride;
    float scale, zero;

    void border(float* map, int positions) { std::fill_n(map, positions, 0.0f); }
    void row(const uint8_t* in, int width, float* map) {
        for (int x = 0; x < width; ++x)
            map[x] = scale * (static_cast<float>(in[x * stride]) - zero);
    }
    bool is_finite() const { return true; }
};

// All levels of a head. Returns whether the values are finite.
template <class Pack, class Value>
bool pack_head(Pack pack, const Value* value, const MapLevels& levels,
               typename Pack::Element* map) {
    for (int l = 0; l < levels.count; ++l) {
        const MapLevel& level = levels.level[l];
        pack.border(map, level.stride), map += level.stride * Pack::SIZE;
        for (int y = 0; y < level.height; ++y) {
            pack.border(map, 1), map += Pack::SIZE;
            pack.row(value, level.width, map);
            map += level.width * Pack::SIZE, value += level.width * pack.stride;
        }
        pack.border(map, level.stride), map += level.stride * Pack::SIZE;
    }
    const MapLevel& last = levels.level[levels.count - 1];
    pack.border(map, padded_tail({last.height, last.width, 0}));
    return pack.is_finite();
}

}  // namespace irstd::ms_deform_attn::IRSTD_ISA
