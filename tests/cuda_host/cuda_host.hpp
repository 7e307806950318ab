// CUDA C++ for g++: included before a .cu file, it makes the very file a CPU program that the
// sanitizers can watch. What a block does together (barriers, shuffles) is in fibers.hpp.
//
// What differs from a GPU: one block runs after the other, the threads of a block are fibers of one
// host thread that switch only at barriers, shuffles and votes, and fast intrinsics are exact.
// Shared memory holds NaN (all bits set) when a block starts. Inline PTX does not exist here.
// Converting a float outside of int's range with a cast is reported as undefined; __float2int_rd and
// its relatives saturate, as on a GPU.
#pragma once

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "fibers.hpp"

// Defined only now: headers of the C library ask for it too.
#define __CUDACC__ 1
#define __CUDA_ARCH__ 860

#ifndef __global__  // set while the kernels' names are looked for
#define __global__
#endif
#define __device__
#define __host__
#define __constant__ static
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)
// `extern __shared__ T name[];` has no counterpart and is rewritten while the .cu file is read.
#define __shared__ static __attribute__((section("irstd_shared")))
#define __builtin_assume(condition) \
    do {                            \
        if (!(condition)) __builtin_unreachable();  /* reported by -fsanitize=undefined */ \
    } while (0)

// Vectors, with the alignment that makes a 16-byte access one instruction on a GPU.
#define IRSTD_VECTORS(T, name, align2, align4)                                                \
    struct alignas(sizeof(T)) name##1 { T x; };                                               \
    struct alignas(align2) name##2 { T x, y; };                                               \
    struct name##3 { T x, y, z; };                                                            \
    struct alignas(align4) name##4 { T x, y, z, w; };                                         \
    constexpr name##1 make_##name##1(T x) { return {x}; }                                     \
    constexpr name##2 make_##name##2(T x, T y) { return {x, y}; }                             \
    constexpr name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                     \
    constexpr name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
IRSTD_VECTORS(signed char, char, 2, 4)
IRSTD_VECTORS(unsigned char, uchar, 2, 4)
IRSTD_VECTORS(short, short, 4, 8)
IRSTD_VECTORS(unsigned short, ushort, 4, 8)
IRSTD_VECTORS(int, int, 8, 16)
IRSTD_VECTORS(unsigned, uint, 8, 16)
IRSTD_VECTORS(long long, longlong, 16, 16)
IRSTD_VECTORS(float, float, 8, 16)
IRSTD_VECTORS(double, double, 16, 16)
#undef IRSTD_VECTORS

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

constexpr int warpSize = irstd_host::WARP;
#define threadIdx (irstd_host::here.thread)
#define blockIdx (irstd_host::here.block)
#define blockDim (irstd_host::here.block_dim)
#define gridDim (irstd_host::here.grid_dim)

inline void __syncthreads() { irstd_host::block_barrier(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { irstd_host::warp_barrier(mask); }
inline void __threadfence_block() {}
inline void __threadfence() {}

// Shuffles. A lane that the mask does not name or that has ended has no value: reading it is an error.
template <class T>
T irstd_shuffle(unsigned mask, T value, int source, const char* name) {
    static_assert(sizeof(T) <= irstd_host::EXCHANGE_BYTES && std::is_trivially_copyable_v<T>);
    unsigned char all[irstd_host::WARP][irstd_host::EXCHANGE_BYTES] = {};
    const unsigned present = irstd_host::exchange(mask, &value, sizeof value, all, name);
    irstd_host::check_source(present, source, name);
    T result;
    memcpy(&result, all[source], sizeof result);
    return result;
}
inline int irstd_segment(int width) { return static_cast<int>(irstd_host::lane()) & ~(width - 1); }
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    return irstd_shuffle(mask, value, irstd_segment(width) + (source & (width - 1)), "__shfl_sync");
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
    const int source = static_cast<int>(irstd_host::lane()) ^ lanes;
    const bool inside = source < irstd_segment(width) + width;
    return irstd_shuffle(mask, value, inside ? source : irstd_host::lane(), "__shfl_xor_sync");
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    const int source = static_cast<int>(irstd_host::lane() + delta);
    const bool inside = source < irstd_segment(width) + width;
    return irstd_shuffle(mask, value, inside ? source : irstd_host::lane(), "__shfl_down_sync");
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    const int source = static_cast<int>(irstd_host::lane()) - static_cast<int>(delta);
    const bool inside = source >= irstd_segment(width);
    return irstd_shuffle(mask, value, inside ? source : irstd_host::lane(), "__shfl_up_sync");
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
    unsigned char all[irstd_host::WARP][irstd_host::EXCHANGE_BYTES] = {};
    const unsigned char mine = predicate != 0;
    const unsigned present = irstd_host::exchange(mask, &mine, 1, all, "__ballot_sync");
    unsigned votes = 0;
    for (int i = 0; i < irstd_host::WARP; ++i) votes |= unsigned(all[i][0] && present >> i & 1) << i;
    return votes;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, !predicate) == 0; }

// Loads and stores with a caching hint.
template <class T> T __ldg(const T* p) { return *p; }
template <class T> T __ldcs(const T* p) { return *p; }
template <class T> T __ldcg(const T* p) { return *p; }
template <class T> T __ldca(const T* p) { return *p; }
template <class T> void __stcs(T* p, T value) { *p = value; }
template <class T> void __stcg(T* p, T value) { *p = value; }
template <class T> void __stwb(T* p, T value) { *p = value; }

// Atomics: the thread sanitizer knows these as such.
inline int atomicAdd(int* p, int value) { return __atomic_fetch_add(p, value, __ATOMIC_RELAXED); }
inline unsigned atomicAdd(unsigned* p, unsigned v) { return __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }
inline int atomicOr(int* p, int value) { return __atomic_fetch_or(p, value, __ATOMIC_RELAXED); }
inline unsigned atomicOr(unsigned* p, unsigned v) { return __atomic_fetch_or(p, v, __ATOMIC_RELAXED); }
inline int atomicExch(int* p, int value) { return __atomic_exchange_n(p, value, __ATOMIC_RELAXED); }
template <class T, class F>
T irstd_atomic(T* p, F&& change) {
    T before, after;
    __atomic_load(p, &before, __ATOMIC_RELAXED);
    do after = change(before);
    while (!__atomic_compare_exchange(p, &before, &after, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return before;
}
inline float atomicAdd(float* p, float v) { return irstd_atomic(p, [v](float a) { return a + v; }); }
inline int atomicMax(int* p, int v) { return irstd_atomic(p, [v](int a) { return a > v ? a : v; }); }
inline int atomicMin(int* p, int v) { return irstd_atomic(p, [v](int a) { return a < v ? a : v; }); }
inline unsigned atomicMax(unsigned* p, unsigned v) { return irstd_atomic(p, [v](unsigned a) { return a > v ? a : v; }); }
inline unsigned atomicMin(unsigned* p, unsigned v) { return irstd_atomic(p, [v](unsigned a) { return a < v ? a : v; }); }

#include "intrinsics.hpp"
