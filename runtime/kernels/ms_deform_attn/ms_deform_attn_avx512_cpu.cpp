// Deformable attention for x86 with AVX-512 and VNNI. What is included before the pragma is code
// for any x86: the linker may keep one copy of an inline function for all.
#include "ms_deform_attn_versions.hpp"

#if defined(IRSTD_HAS_VERSIONS)
#include <immintrin.h>
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")
#define IRSTD_ISA avx512
#define IRSTD_VECTOR_BYTES 64
#include "ms_deform_attn_core.hpp"
#include "ms_deform_attn_project.hpp"
//
#include "ms_deform_attn_module.hpp"
#endif
