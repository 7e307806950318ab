// The versions of the CPU form: one for each generation of x86, in a source file of its own, and
// one for any processor. The best is chosen when the library is loaded.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "ms_deform_attn_map.hpp"
#include "ms_deform_attn_memory.hpp"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(IRSTD_PLAIN)
#define IRSTD_HAS_VERSIONS
#endif

// Compiled once for all d_head, not into each caller: half of the compiler's time.
#define IRSTD_ONCE static __attribute__((noinline))

namespace irstd::ms_deform_attn {

#define IRSTD_VERSION(isa)                                                                   \
    namespace isa {                                                                          \
    bool attend(const Core& core, const MapLevels& levels, void* workspace, int64_t begin,   \
                int64_t end);                                                                \
    bool run_module(const Module& module, const MapLevels& levels, Step step, int64_t begin, \
                    int64_t end);                                                            \
    }
IRSTD_VERSION(plain)
IRSTD_VERSION(avx2)
IRSTD_VERSION(avx512)
#undef IRSTD_VERSION

}  // namespace irstd::ms_deform_attn
