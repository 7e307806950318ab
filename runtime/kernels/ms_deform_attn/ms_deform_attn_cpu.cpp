// What the CPU library exports of deformable attention, and which version of it computes.
#include "ms_deform_attn_cpu.hpp"

#include <cstdlib>
#include <new>

#include "../status.hpp"
#include "ms_deform_attn_versions.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace irstd::ms_deform_attn {

Memory::~Memory() { release(); }

void Memory::release() {
    std::free(data_);
    data_ = nullptr, bytes_ = 0;
}

void Memory::reserve(size_t bytes) {
    constexpr size_t LINE = 64, LARGE_PAGE = size_t{2} << 20;
    if (bytes <= bytes_) return;
    const size_t unit = bytes < LARGE_PAGE ? LINE : LARGE_PAGE;
    const size_t whole = (bytes + unit - 1) / unit * unit;
    release();
    data_ = std::aligned_alloc(unit, whole);
    if (!data_) throw std::bad_alloc();
    bytes_ = whole;
#if defined(__linux__)
    if (unit == LARGE_PAGE) madvise(data_, bytes_, MADV_HUGEPAGE);
#endif
}

namespace {

struct Version {
    decltype(plain::attend)* attend;
    decltype(plain::run_module)* run_module;
};

Version best_version() {
#if defined(IRSTD_HAS_VERSIONS)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni"))
        return {avx512::attend, avx512::run_module};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return {avx2::attend, avx2::run_module};
#endif
    return {plain::attend, plain::run_module};
}

const Version VERSION = best_version();

size_t map_bytes(const Shape& shape, bool is_bytes) {
    const size_t element = is_bytes && shape.d_head > 1 ? 2 : sizeof(float);
    return element * shape.d_head * MapLevels(shape).positions;
}

// Of the map of a head, between calls: finding its pages costs as much as the repacking.
constexpr size_t MOST_KEPT_BYTES = size_t{64} << 20;

int attend(const Core& core, int64_t begin, int64_t end) {
    static thread_local Memory workspace;
    return status_of([&] {
        const size_t bytes = map_bytes(core.shape, core.scale);
        workspace.reserve(bytes);
        const bool is_finite =
            VERSION.attend(core, MapLevels(core.shape), workspace.data(), begin, end);
        if (bytes > MOST_KEPT_BYTES) workspace.release();
        return is_finite;
    });
}

int run(const Module& module, Step step, int64_t begin, int64_t end) {
    return status_of(
        [&] { return VERSION.run_module(module, MapLevels(module.shape), step, begin, end); });
}

}  // namespace
}  // namespace irstd::ms_deform_attn

using irstd::ms_deform_attn::Step;

IRSTD_EXPORT int irstd_ms_deform_attn_f32(const irstd_ms_deform_attn_shape* shape,
                                          const float* value, const float* offsets,
                                          const float* logits, const float* reference_points,
                                          float* out, int64_t begin, int64_t end) {
    return irstd::ms_deform_attn::attend(
        {*shape, value, nullptr, nullptr, offsets, logits, reference_points, out}, begin, end);
}

IRSTD_EXPORT int irstd_ms_deform_attn_u8(const irstd_ms_deform_attn_shape* shape,
                                         const uint8_t* value, const float* scale,
                                         const float* zero, const float* offsets,
                                         const float* logits, const float* reference_points,
                                         float* out, int64_t begin, int64_t end) {
    return irstd::ms_deform_attn::attend(
        {*shape, value, scale, zero, offsets, logits, reference_points, out}, begin, end);
}

IRSTD_EXPORT int64_t irstd_ms_deform_attn_map_bytes(const irstd_ms_deform_attn_shape* shape,
                                                    int is_bytes) {
    return static_cast<int64_t>(irstd::ms_deform_attn::map_bytes(*shape, is_bytes));
}

IRSTD_EXPORT int irstd_ms_deform_attn_module_values(const irstd_ms_deform_attn_module* module,
                                                    int64_t begin, int64_t end) {
    return irstd::ms_deform_attn::run(*module, Step::VALUES, begin, end);
}

IRSTD_EXPORT int irstd_ms_deform_attn_module_maps(const irstd_ms_deform_attn_module* module,
                                                  int64_t begin, int64_t end) {
    return irstd::ms_deform_attn::run(*module, Step::MAPS, begin, end);
}

IRSTD_EXPORT int irstd_ms_deform_attn_module_queries(const irstd_ms_deform_attn_module* module,
                                                     int64_t begin, int64_t end) {
    return irstd::ms_deform_attn::run(*module, Step::QUERIES, begin, end);
}
