// Kernels with one fault each, which the sanitizers must find, and their sound counterparts.
#include <cuda_fp16.h>

constexpr int THREADS = 64;

extern "C" __global__ void __launch_bounds__(THREADS) reverse_block(const float* in, float* out) {
    __shared__ float tile[THREADS];
    const unsigned i = blockIdx.x * THREADS + threadIdx.x;
    tile[threadIdx.x] = in[i];
    __syncthreads();
    out[i] = tile[THREADS - 1 - threadIdx.x];
}

extern "C" __global__ void race_on_shared(const float* in, float* out) {
    __shared__ float tile[THREADS];
    const unsigned i = blockIdx.x * THREADS + threadIdx.x;
    tile[threadIdx.x] = in[i];
    out[i] = tile[THREADS - 1 - threadIdx.x];
}

extern "C" __global__ void race_at_second_barrier(const float* in, float* out) {
    extern __shared__ __align__(16) float scratch[];
    const unsigned i = blockIdx.x * THREADS + threadIdx.x;
    scratch[threadIdx.x] = in[i];
    __syncthreads();
    const float other = scratch[THREADS - 1 - threadIdx.x];
    scratch[threadIdx.x] = 2.0f * other;  // another thread may not have read it yet
    __syncthreads();
    out[i] = scratch[threadIdx.x];
}

extern "C" __global__ void race_across_shuffle(const float* in, float* out) {
    extern __shared__ float scratch[];
    scratch[threadIdx.x] = in[threadIdx.x];
    const float other = __shfl_xor_sync(0xffffffffu, in[threadIdx.x], 1);  // orders no memory
    out[threadIdx.x] = scratch[threadIdx.x ^ 1] + other;
}

extern "C" __global__ void sound_in_warp(const float* in, float* out) {
    extern __shared__ float scratch[];
    scratch[threadIdx.x] = in[threadIdx.x];
    __syncwarp();
    out[threadIdx.x] = scratch[threadIdx.x ^ 1];
}

extern "C" __global__ void race_between_blocks(float* out) {
    out[threadIdx.x] = static_cast<float>(blockIdx.x);
}

extern "C" __global__ void count_up(int* counter) { atomicAdd(counter, 1); }

extern "C" __global__ void past_global(const float* in, float* out) {
    out[threadIdx.x] = in[threadIdx.x + 1];
}

extern "C" __global__ void past_dynamic_shared(float* out) {
    extern __shared__ float scratch[];
    scratch[threadIdx.x + 1] = 1.0f;
    out[threadIdx.x] = scratch[threadIdx.x + 1];
}

extern "C" __global__ void past_static_shared(float* out, int reach) {
    __shared__ float tile[THREADS];
    float* cursor = tile + threadIdx.x;
    cursor[reach] = 1.0f;
    out[threadIdx.x] = cursor[reach];
}

extern "C" __global__ void past_registers(float* out, int reach) {
    float own[4] = {1.0f, 2.0f, 3.0f, 4.0f};
    float* cursor = own;
    __syncthreads();
    out[threadIdx.x] = cursor[reach];
}

extern "C" __global__ void misaligned_load(const float* in, float* out) {
    const float4 four = *reinterpret_cast<const float4*>(in + 1);
    out[threadIdx.x] = four.x;
}

extern "C" __global__ void overflow_of_int(int* out, int large) {
    out[threadIdx.x] = large + static_cast<int>(threadIdx.x);
}

extern "C" __global__ void float_to_int_outside(int* out, float x) { out[0] = static_cast<int>(x); }

extern "C" __global__ void float_to_int_saturating(int* out, float x) { out[0] = __float2int_rd(x); }

extern "C" __global__ void unwritten_shared(float* out) {
    __shared__ float tile[THREADS];
    if (threadIdx.x == 0 && blockIdx.x == 0) tile[1] = 1.0f;
    __syncthreads();
    out[blockIdx.x] = tile[1];
}

extern "C" __global__ void barrier_in_branch(float* out) {
    if (threadIdx.x < 40) __syncthreads();
    __shfl_sync(0xffffffffu, 1.0f, 0);
    out[threadIdx.x] = 0.0f;
}

extern "C" __global__ void shuffle_from_absent(float* out) {
    if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0x0000ffffu, 1.0f, 20);
}

extern "C" __global__ void sum_of_warp(const __half* in, __half* out) {
    __half sum = in[threadIdx.x];
    for (int lanes = 16; lanes; lanes /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
    out[threadIdx.x] = sum;
}

struct Scale {
    float factor;
    int offset;
};

extern "C" __global__ void indices(const Scale scale, const int* none, float* out, int width) {
    const unsigned x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x < unsigned(width) && !none) out[y * width + x] = scale.factor * x + 100.0f * y + scale.offset;
}
