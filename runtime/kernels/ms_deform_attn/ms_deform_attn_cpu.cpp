// What the CPU library exports of deformable attention, and which version of it computes.
#include "ms_deform_attn_cpu.hpp"

#include <cstdlib>

#include "ms_deform_attn_versions.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace irstd::ms_deform_attn {
namespace {

// A thread's memory for the map of a head: kept, because its pages cost as much as the repacking, and
// in large pages, because the rows that neighbouring queries reach lie on more small ones than the
// processor keeps addresses of.
class Workspace {
public:
    ~Workspace() { std::free(memory_); }
    void* of(size_t bytes) {
        if (bytes <= bytes_) return memory_;
        std::free(memory_);
        bytes_ = (bytes + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE;
        memory_ = std::aligned_alloc(LARGE_PAGE, bytes_);
        if (!memory_) std::abort();
#if defined(__linux__)
        madvise(memory_, bytes_, MADV_HUGEPAGE);
#endif
        return memory_;
    }

private:
    static constexpr size_t LARGE_PAGE = size_t{2} << 20;
    void* memory_ = nullptr;
    size_t bytes_ = 0;
};

using Attend = decltype(plain::attend);

Attend* best_version() {
#if defined(IRSTD_HAS_VERSIONS)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return avx512::attend;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2::attend;
#endif
    return plain::attend;
}

Attend* const ATTEND = best_version();

int attend(const Core& core, int64_t begin, int64_t end) {
    static thread_local Workspace workspace;
    const MapLevels levels(core.shape);
    const size_t element = core.scale && core.shape.d_head > 1 ? 2 : sizeof(float);
    void* memory = workspace.of(element * core.shape.d_head * levels.positions);
    return ATTEND(core, levels, memory, begin, end) ? 0 : 1;
}

}  // namespace
}  // namespace irstd::ms_deform_attn

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
