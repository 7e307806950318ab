// The core of deformable attention on a CPU: head after head, its values repacked, then its queries
// tile after tile. Of one head's map, what neighbouring queries reach stays in the nearer caches;
// of all heads' it would not.
//
// No include guard: compiled once for each generation of processors, in the namespace IRSTD_ISA.
#include "ms_deform_attn_tile.hpp"
//
#include "ms_deform_attn_gather.hpp"
#include "ms_deform_attn_pack.hpp"

namespace irstd::ms_deform_attn::IRSTD_ISA {

constexpr int TILES_AHEAD = 4;

// Queries [begin, end) of a head. Returns whether their inputs are finite.
template <int D, class Points, class Map>
bool attend_head(const Core& core, const MapLevels& levels, const Map& map, int element, int image,
                 int head, int begin, int end) {
    const Shape& shape = core.shape;
    const int points = levels.count * levels.points;
    const size_t stride = static_cast<size_t>(shape.heads) * points;  // from a query to the next
    Queries queries(core, levels, image, begin);
    Inputs inputs;
    Points set;
    bool is_finite = true;
    for (int query = begin; query < end; query += TILE) {
        const int count = std::min(TILE, end - query);
        const size_t item =
            (static_cast<size_t>(image) * shape.queries + query) * shape.heads + head;
        const float* offsets = core.offsets + item * points * 2;
        const float* logits = core.logits + item * points;
        queries.next(count, inputs);
        transpose(offsets, stride * 2, points * 2, count, inputs.offset[0]);
        transpose(logits, stride, points, count, inputs.logit[0]);
        is_finite &= set_up(inputs, levels, element, set);
        const size_t away =
            query + (TILES_AHEAD + 1) * TILE <= end ? TILES_AHEAD * TILE * stride : 0;
        gather<D>(map, levels, set, {offsets + away * 2, logits + away, stride, points}, count,
                  core.out + item * D, static_cast<size_t>(shape.heads) * D);
    }
    return is_finite;
}

template <int D>
bool attend_floats(const Core& core, const MapLevels& levels, void* workspace, int image, int head,
                   int begin, int end) {
    const Shape& shape = core.shape;
    const size_t stride = static_cast<size_t>(shape.heads) * D;
    const float* value = static_cast<const float*>(core.value) +
                         static_cast<size_t>(image) * levels.values * stride + head * D;
    float* map = static_cast<float*>(workspace);
    const bool is_finite = pack_head(FloatPack<D>{stride}, value, levels, map);
    return attend_head<D, FloatPoints>(core, levels, FloatMap{map}, D, image, head, begin, end) &&
           is_finite;
}

template <int D>
bool attend_bytes(const Core& core, const MapLevels& levels, void* workspace, int image, int head,
                  int begin, int end) {
    const Shape& shape = core.shape;
    const size_t stride = static_cast<size_t>(shape.heads) * D;
    const uint8_t* value = static_cast<const uint8_t*>(core.value) +
                           static_cast<size_t>(image) * levels.values * stride + head * D;
    const float scale = core.scale[head], zero = core.zero[head];
    if constexpr (D == 1) {
        float* map = static_cast<float*>(workspace);
        pack_head(SinglePack{stride, scale, zero}, value, levels, map);
        return attend_head<D, FloatPoints>(core, levels, FloatMap{map}, D, image, head, begin, end);
    } else {
        int8_t* map = static_cast<int8_t*>(workspace);
        pack_head(BytePack<D>{stride, BytePack<D>::signed_of(static_cast<uint8_t>(zero))}, value,
                  levels, map);
        return attend_head<D, BytePoints>(core, levels,
                                          ByteMap{map, scale, scale * (128.0f - zero)}, 2 * D,
                                          image, head, begin, end);
    }
}

// Items [begin, end) of images, heads, queries. Returns whether their inputs are finite.
template <int D>
bool attend_items(const Core& core, const MapLevels& levels, void* workspace, int64_t begin,
                  int64_t end) {
    const Shape& shape = core.shape;
    bool is_finite = true;
    for (int64_t item = begin; item < end;) {
        const int64_t map = item / shape.queries;
        const int64_t last = std::min(end, (map + 1) * shape.queries);
        const auto attend = core.scale ? attend_bytes<D> : attend_floats<D>;
        is_finite &= attend(core, levels, workspace, static_cast<int>(map / shape.heads),
                            static_cast<int>(map % shape.heads),
                            static_cast<int>(item - map * shape.queries),
                            static_cast<int>(last - map * shape.queries));
        item = last;
    }
    return is_finite;
}

bool attend(const Core& core, const MapLevels& levels, void* workspace, int64_t begin,
            int64_t end) {
    switch (core.shape.d_head) {
        case 1: return attend_items<1>(core, levels, workspace, begin, end);
        case 8: return attend_items<8>(core, levels, workspace, begin, end);
        case 16: return attend_items<16>(core, levels, workspace, begin, end);
        default: return attend_items<32>(core, levels, workspace, begin, end);
    }
}

}  // namespace irstd::ms_deform_attn::IRSTD_ISA
