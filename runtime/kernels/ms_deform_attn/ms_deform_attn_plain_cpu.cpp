// Deformable attention for any processor, in vectors of 16 bytes.
#include "ms_deform_attn_versions.hpp"

#define IRSTD_ISA plain
#define IRSTD_VECTOR_BYTES 16
#include "ms_deform_attn_core.hpp"
#include "ms_deform_attn_project.hpp"
//
#include "ms_deform_attn_module.hpp"
