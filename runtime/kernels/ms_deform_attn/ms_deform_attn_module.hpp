// The module of deformable attention on a CPU. A band of queries at a time: its offsets and logits,
// the gather of all heads, the output layer. What is between them never leaves the cache.
//
// No include guard: compiled once for each generation of processors, in the namespace IRSTD_ISA.

namespace irstd::ms_deform_attn::IRSTD_ISA {

constexpr int BAND = 96;  // queries, or rows of the source: a multiple of all ROWS and of TILE
constexpr size_t LINE = 64;

// Numbers of a band, each row in whole lines of the cache.
template <class Number>
class Band {
public:
    explicit Band(int columns)
        : stride_((columns * sizeof(Number) + LINE - 1) / LINE * LINE / sizeof(Number)),
          memory_(BAND * stride_ * sizeof(Number)) {}

    Number* rows() { return static_cast<Number*>(memory_.data()); }
    size_t stride() const { return stride_; }

private:
    size_t stride_;
    Memory memory_;
};

// What the module computes with: float32, or integers.
template <int D>
struct Floating {
    using Value = float;
    using Attended = float;
    using Map = FloatMap;
    using Points = FloatPoints;
    using Pack = FloatPack<D>;
    using Rows = FloatRows;

    // Activations as the layers take them.
    struct Activations {
        const float* rows = nullptr;
        size_t stride;

        explicit Activations(const Module& module) : stride(module.channels) {}
        bool take(const float* in, int, float, float) {
            rows = in;
            return true;  // what is not finite shows in what it is multiplied to
        }
    };
    static Pack pack(const Module&, size_t stride, int) { return {stride}; }
};

template <int D>
struct Integral {
    using Value = uint8_t;
    using Attended = int16_t;
    using Map = ByteMap;
    using Points = BytePoints;
    using Pack = BytePack<D>;
    using Rows = ByteRows;

    struct Activations {
        Band<uint8_t> band;
        int channels;
        const uint8_t* rows;
        size_t stride;

        explicit Activations(const Module& module)
            : band(module.value.depth),
              channels(module.channels),
              rows(band.rows()),
              stride(band.stride()) {}
        bool take(const float* in, int count, float scale, float zero) {
            return quantize(in, count, channels, scale, zero, band.rows(), stride);
        }
    };
    static Pack pack(const Module& module, size_t stride, int head) {
        return {stride, Pack::signed_of(static_cast<uint8_t>(module.value_zero[head]))};
    }
};

// Rows [begin, end) of the source to values.
template <class Kind>
bool to_values(const Module& module, int64_t begin, int64_t end) {
    const size_t columns = module.value.columns;
    typename Kind::Activations activations(module);
    bool is_finite = true;
    for (int64_t row = begin; row < end; row += BAND) {
        const int count = static_cast<int>(end - row < BAND ? end - row : BAND);
        is_finite &= activations.take(module.source + row * module.channels, count,
                                      module.source_scale, module.source_zero);
        auto* out = static_cast<typename Kind::Value*>(module.values) + row * columns;
        project(module.value, activations.rows, activations.stride, count,
                typename Kind::Rows{out, columns});
    }
    return is_finite;
}

// Values to maps [begin, end) of images and heads.
template <class Kind>
bool to_maps(const Module& module, const MapLevels& levels, int64_t begin, int64_t end) {
    const Shape& shape = module.shape;
    const size_t stride = static_cast<size_t>(shape.heads) * shape.d_head;
    bool is_finite = true;
    for (int64_t map = begin; map < end; ++map) {
        const int head = static_cast<int>(map % shape.heads);
        const auto* values = static_cast<const typename Kind::Value*>(module.values) +
                             map / shape.heads * levels.values * stride + head * shape.d_head;
        is_finite &= pack_head(Kind::pack(module, stride, head), values, levels,
                               static_cast<typename Kind::Pack::Element*>(module.maps) +
                                   map * levels.positions * Kind::Pack::SIZE);
    }
    return is_finite;
}

// The core of a band, from its offsets and logits to what the output layer takes. Head after head,
// so that the queries of the band share what they reach of a map.
template <int D, class Kind>
bool attend_band(const Module& module, const MapLevels& levels, int image, int first, int count,
                 Band<float>& points, Band<typename Kind::Attended>& attended) {
    const int heads = module.shape.heads, per_head = levels.count * levels.points;
    const Core core = {
        module.shape, nullptr, nullptr, nullptr, nullptr, nullptr, module.reference_points,
        nullptr};
    Inputs inputs;
    typename Kind::Points set;
    typename Kind::Map map = {};
    bool is_finite = true;
    for (int head = 0; head < heads; ++head) {
        const size_t size = static_cast<size_t>(levels.positions) * Kind::Pack::SIZE;
        set_address(map, static_cast<const typename Kind::Pack::Element*>(module.maps) +
                             (static_cast<size_t>(image) * heads + head) * size);
        Queries queries(core, levels, image, first);
        for (int query = 0; query < count; query += TILE) {
            const int lanes = count - query < TILE ? count - query : TILE;
            const float* row = points.rows() + query * points.stride();
            queries.next(lanes, inputs);
            transpose(row + head * per_head * 2, points.stride(), per_head * 2, lanes,
                      inputs.offset[0]);
            transpose(row + (heads * 2 + head) * per_head, points.stride(), per_head, lanes,
                      inputs.logit[0]);
            is_finite &= set_up(inputs, levels, Kind::Pack::SIZE, set);
            gather<D>(map, levels, set, Ahead{}, lanes,
                      attended.rows() + query * attended.stride() + head * D, attended.stride());
        }
    }
    return is_finite;
}

// Queries [begin, end) of an image.
template <int D, class Kind>
bool to_out(const Module& module, const MapLevels& levels, int image, int begin, int end) {
    typename Kind::Activations activations(module);
    Band<float> points(module.points.columns);
    Band<typename Kind::Attended> attended(module.output.depth);
    const size_t results = module.results;
    bool is_finite = true;
    for (int query = begin; query < end; query += BAND) {
        const int count = end - query < BAND ? end - query : BAND;
        const size_t row = static_cast<size_t>(image) * module.shape.queries + query;
        is_finite &= activations.take(module.query + row * module.channels, count,
                                      module.query_scale, module.query_zero);
        project(module.points, activations.rows, activations.stride, count,
                FloatRows{points.rows(), points.stride()});
        is_finite &= attend_band<D, Kind>(module, levels, image, query, count, points, attended);
        project(module.output, attended.rows(), attended.stride(), count,
                FloatRows{module.out + row * results, results});
    }
    return is_finite;
}

template <int D, class Kind>
bool run(const Module& module, const MapLevels& levels, Step step, int64_t begin, int64_t end) {
    if (step == Step::VALUES) return to_values<Kind>(module, begin, end);
    if (step == Step::MAPS) return to_maps<Kind>(module, levels, begin, end);
    const int64_t queries = module.shape.queries;
    bool is_finite = true;
    for (int64_t query = begin; query < end;) {
        const int64_t image = query / queries, next = (image + 1) * queries;
        const int64_t last = end < next ? end : next;
        is_finite &= to_out<D, Kind>(module, levels, static_cast<int>(image),
                                     static_cast<int>(query - image * queries),
                                     static_cast<int>(last - image * queries));
        query = last;
    }
    return is_finite;
}

bool run_module(const Module& module, const MapLevels& levels, Step step, int64_t begin,
                int64_t end) {
    const bool is_integral = module.is_integer;
    switch (module.shape.d_head) {
        case 1: return run<1, Floating<1>>(module, levels, step, begin, end);
        case 8:
            return is_integral ? run<8, Integral<8>>(module, levels, step, begin, end)
                               : run<8, Floating<8>>(module, levels, step, begin, end);
        case 16:
            return is_integral ? run<16, Integral<16>>(module, levels, step, begin, end)
                               : run<16, Floating<16>>(module, levels, step, begin, end);
        default:
            return is_integral ? run<32, Integral<32>>(module, levels, step, begin, end)
                               : run<32, Floating<32>>(module, levels, step, begin, end);
    }
}

}  // namespace irstd::ms_deform_attn::IRSTD_ISA
