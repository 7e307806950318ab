// Phase one of deformable attention on a CPU: a tile of queries of one head as lanes. Offsets and
// logits are transposed; softmax, locations and weights are then arithmetic on vectors of queries.
//
// No include guard: compiled once for each generation of processors, in the namespace IRSTD_ISA.

namespace irstd::ms_deform_attn::IRSTD_ISA {

constexpr int VECTOR_FLOATS = IRSTD_VECTOR_BYTES / sizeof(float);

template <int N>
struct Floats;
template <>
struct Floats<4> {
    typedef float Vector __attribute__((vector_size(16), aligned(4), may_alias));
};
template <>
struct Floats<8> {
    typedef float Vector __attribute__((vector_size(32), aligned(4), may_alias));
};
template <>
struct Floats<16> {
    typedef float Vector __attribute__((vector_size(64), aligned(4), may_alias));
};

constexpr int TILE = 16;  // queries; lanes beyond the last one repeat it

struct alignas(64) Inputs {
    float offset[2 * MOST_POINTS][TILE];  // x, y of the first point, x, y of the second, ...
    float logit[MOST_POINTS][TILE];       // after the softmax: attention
    float x_px[MAX_LEVELS][TILE], y_px[MAX_LEVELS][TILE];  // what the offsets count from
};

constexpr int32_t INFINITY_BITS = 0x7f800000;

inline int32_t larger(int32_t a, int32_t b) { return a > b ? a : b; }

// Larger for larger numbers, INFINITY_BITS for infinity, still larger for NaN.
inline int32_t size_bits(float number) {
    int32_t bits;
    memcpy(&bits, &number, sizeof bits);
    return bits & 0x7fffffff;
}

// What the gather needs of every point of every query: where its upper left tap is and weights.
struct alignas(64) FloatPoints {
    int32_t position[MOST_POINTS][TILE];
    float w00[MOST_POINTS][TILE], w01[MOST_POINTS][TILE];
    float w10[MOST_POINTS][TILE], w11[MOST_POINTS][TILE];

    void set(int k, int lane, float attention, float dx, float dy) {
        const Taps w = taps(attention, dx, dy);
        w00[k][lane] = w.w00, w01[k][lane] = w.w01, w10[k][lane] = w.w10, w11[k][lane] = w.w11;
    }
};

// Weights as the byte products want them: those of two neighbours in the bytes of a word, attention
// in 1/32768, each twice in 32 bits, because these are broadcast in one instruction.
struct alignas(64) BytePoints {
    int32_t position[MOST_POINTS][TILE];
    int32_t above[MOST_POINTS][TILE], below[MOST_POINTS][TILE], attention[MOST_POINTS][TILE];

    void set(int k, int lane, float share, float dx, float dy) {
        // None of the four is negative: w00 is (255 - x) (255 - y) / 255, rounded the same way.
        const int x = static_cast<int>(dx * 255.0f + 0.5f),
                  y = static_cast<int>(dy * 255.0f + 0.5f);
        const int w11 = static_cast<int>(static_cast<float>(x * y) * (1.0f / 255.0f) + 0.5f);
        const int w01 = x - w11, w10 = y - w11, w00 = 255 - x - w10;
        above[k][lane] = twice(w00 | w01 << 8);
        below[k][lane] = twice(w10 | w11 << 8);
        attention[k][lane] = twice(static_cast<int>(share * 32767.0f + 0.5f));
    }
    static int32_t twice(int half) {
        return static_cast<int32_t>(static_cast<uint32_t>(half) * 0x10001u);
    }
};

// Rows of `columns` numbers, a query each, to columns of TILE.
IRSTD_ONCE void transpose(const float* rows, size_t stride, int columns, int count, float* out) {
    int column = 0;
#if IRSTD_VECTOR_BYTES >= 32
    if (count == TILE)
        for (; column + 4 <= columns; column += 4)
            for (int lane = 0; lane < TILE; lane += 8) {
                const float* in = rows + lane * stride + column;
                __m256 row[4];
                for (int i = 0; i < 4; ++i)
                    row[i] =
                        _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(in + i * stride)),
                                             _mm_loadu_ps(in + (i + 4) * stride), 1);
                const __m256 a = _mm256_unpacklo_ps(row[0], row[1]);
                const __m256 b = _mm256_unpacklo_ps(row[2], row[3]);
                const __m256 c = _mm256_unpackhi_ps(row[0], row[1]);
                const __m256 d = _mm256_unpackhi_ps(row[2], row[3]);
                float* to = out + column * TILE + lane;
                _mm256_store_ps(to, _mm256_shuffle_ps(a, b, 0x44));
                _mm256_store_ps(to + TILE, _mm256_shuffle_ps(a, b, 0xee));
                _mm256_store_ps(to + 2 * TILE, _mm256_shuffle_ps(c, d, 0x44));
                _mm256_store_ps(to + 3 * TILE, _mm256_shuffle_ps(c, d, 0xee));
            }
#endif
    for (; column < columns; ++column)
        for (int lane = 0; lane < TILE; ++lane)
            out[column * TILE + lane] = rows[(lane < count ? lane : count - 1) * stride + column];
}

// Whether numbers are finite: then the sum of parts of them is. (Zero parts would do as well, but
// g++ 12 takes 0 * x for 0 in vectors.) Four sums, because an addition waits for the one before, in
// explicit vectors, because an array of numbers would be kept in memory.
class FiniteCheck {
public:
    void add(const float (*numbers)[TILE], int count) {
        const Vector* in = reinterpret_cast<const Vector*>(numbers);
        const Vector* end = reinterpret_cast<const Vector*>(numbers + count);
        for (; in + 4 <= end; in += 4)
            a_ += PART * in[0], b_ += PART * in[1], c_ += PART * in[2], d_ += PART * in[3];
        for (; in < end; ++in) a_ += PART * in[0];
    }
    bool is_passed() const {
        const Vector sum = (a_ + b_) + (c_ + d_);
        int32_t most = 0;
        for (int i = 0; i < VECTOR_FLOATS; ++i) most = larger(most, size_bits(sum[i]));
        return most < INFINITY_BITS;
    }

private:
    using Vector = Floats<VECTOR_FLOATS>::Vector;
    static constexpr float PART = 1.0f / 4096.0f;  // of more numbers than are added
    Vector a_ = {}, b_ = {}, c_ = {}, d_ = {};
};

inline void softmax(float (*logit)[TILE], int points) {
    float most[TILE], sum[TILE];
    for (int lane = 0; lane < TILE; ++lane) most[lane] = logit[0][lane], sum[lane] = 0.0f;
    for (int k = 1; k < points; ++k)
        for (int lane = 0; lane < TILE; ++lane)
            most[lane] = most[lane] > logit[k][lane] ? most[lane] : logit[k][lane];
    for (int k = 0; k < points; ++k)
        for (int lane = 0; lane < TILE; ++lane) {
            const float power = exponential(logit[k][lane] - most[lane]);
            logit[k][lane] = power, sum[lane] += power;
        }
    for (int lane = 0; lane < TILE; ++lane) sum[lane] = 1.0f / sum[lane];
    for (int k = 0; k < points; ++k)
        for (int lane = 0; lane < TILE; ++lane) logit[k][lane] *= sum[lane];
}

// Inputs to points. `element` is how many numbers of the map a position has. Returns whether the
// inputs are finite.
template <class Points>
IRSTD_ONCE bool set_up(Inputs& in, const MapLevels& levels, int element, Points& points) {
    const int count = levels.count * levels.points;
    FiniteCheck check;
    check.add(in.offset, 2 * count), check.add(in.logit, count);
    check.add(in.x_px, levels.count), check.add(in.y_px, levels.count);
    softmax(in.logit, count);
    for (int l = 0; l < levels.count; ++l) {
        const MapLevel& level = levels.level[l];
        const float width = static_cast<float>(level.width),
                    height = static_cast<float>(level.height);
        const float stride = static_cast<float>(level.stride);
        const int origin = levels.origin(l);
        for (int k = l * levels.points; k < (l + 1) * levels.points; ++k)
            for (int lane = 0; lane < TILE; ++lane) {
                const Corner c =
                    corner(in.x_px[l][lane] + in.offset[2 * k][lane],
                           in.y_px[l][lane] + in.offset[2 * k + 1][lane], width, height);
                points.position[k][lane] =
                    (origin + static_cast<int>(c.y * stride + c.x)) * element;
                points.set(k, lane, in.logit[k][lane], c.dx, c.dy);
            }
    }
    return check.is_passed();
}

// Where queries lie on each level: their own pixel of a grid, or their reference point.
class Queries {
public:
    Queries(const Core& core, const MapLevels& levels, int image, int first) : levels_(levels) {
        const Shape& shape = core.shape;
        if (core.reference_points) {
            references_ =
                core.reference_points + (static_cast<size_t>(image) * shape.queries + first) * 2;
            return;
        }
        width_ = shape.query_hw[1], x_ = first % width_, y_ = first / width_;
        for (int l = 0; l < levels.count; ++l) {
            const MapLevel& level = levels.level[l];
            x_scale_[l] = static_cast<float>(level.width) / static_cast<float>(width_);
            y_scale_[l] = static_cast<float>(level.height) / static_cast<float>(shape.query_hw[0]);
        }
    }

    // The next `count` queries.
    void next(int count, Inputs& in) { references_ ? next_points(count, in) : next_pixels(in); }

private:
    void next_points(int count, Inputs& in) {
        for (int l = 0; l < levels_.count; ++l)
            for (int lane = 0; lane < TILE; ++lane) {
                const float* point = references_ + 2 * (lane < count ? lane : count - 1);
                in.x_px[l][lane] = reference_px(point[0], levels_.level[l].width);
                in.y_px[l][lane] = reference_px(point[1], levels_.level[l].height);
            }
        references_ += 2 * count;
    }

    void next_pixels(Inputs& in) {
        float x[TILE], y[TILE];
        if (x_ + TILE <= width_) {
            for (int lane = 0; lane < TILE; ++lane)
                x[lane] = static_cast<float>(x_) + IOTA[lane], y[lane] = static_cast<float>(y_);
            x_ += TILE;
        } else {
            for (int lane = 0; lane < TILE; ++lane, ++x_) {
                if (x_ == width_) x_ = 0, ++y_;
                x[lane] = static_cast<float>(x_), y[lane] = static_cast<float>(y_);
            }
        }
        for (int l = 0; l < levels_.count; ++l) {
            const float x_scale = x_scale_[l], x_first = 0.5f * x_scale - 0.5f;
            const float y_scale = y_scale_[l], y_first = 0.5f * y_scale - 0.5f;
            for (int lane = 0; lane < TILE; ++lane) {
                in.x_px[l][lane] = x[lane] * x_scale + x_first;
                in.y_px[l][lane] = y[lane] * y_scale + y_first;
            }
        }
        if (x_ == width_) x_ = 0, ++y_;
    }

    static constexpr float IOTA[TILE] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const MapLevels& levels_;
    const float* references_ = nullptr;
    int width_ = 0, x_ = 0, y_ = 0;
    float x_scale_[MAX_LEVELS], y_scale_[MAX_LEVELS];  // pixels of a level for one of the grid
};

}  // namespace irstd::ms_deform_attn::IRSTD_ISA
