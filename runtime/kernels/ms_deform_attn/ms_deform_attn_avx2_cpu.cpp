// Deformable attention for x86 with AVX2. What is included before the pragma is code for any x86:
// the linker may keep one copy of an inline function for all.
#include "ms_deform_attn_versions.hpp"

#if defined(IRSTD_HAS_VERSIONS)
#include <immintrin.h>
#pragma GCC target("avx2,fma")
#define IRSTD_ISA avx2
#define IRSTD_VECTOR_BYTES 32
#include "ms_deform_attn_core.hpp"
#include "ms_deform_attn_project.hpp"
//
#include "ms_deform_attn_module.hpp"
#endif
