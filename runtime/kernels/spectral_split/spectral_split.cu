// The spectral split on a GPU: the low band of every channel, then one kernel that pools both bands
// over the channels, gates them and adds them up.
//
// Memory plan, in reads and writes of all of x (compulsory: 2). Maps up to 128x128 px are
// transformed in shared memory by one block each, x to low (2). Larger ones take three kernels,
// which work in place in what becomes low: rows from x to half of their spectrum, which is as large
// as the rows (2); eight columns at a time, forward, times the response and back (2); rows back
// (2). The gates read x and low from DRAM, a second time from the cache, and write out (3): 5 or 9
// in all. Arithmetic is float32. A spectrum in half storage is that of x minus a constant near its
// mean, which passes the filter unchanged, and is scaled down to the size of x: it never overflows.
#include "spectral_split_gate.hpp"
#include "spectral_split_transform.hpp"

namespace irstd::spectral_split {
namespace {

// What is taken off a map before its spectrum is rounded: the mean of its middle row. Every warp of
// every block finds the same number.
__device__ __forceinline__ float offset_of(const float*, int, int) { return 0.0f; }
__device__ __forceinline__ float offset_of(const __half* map, int height, int width) {
    const __half* row = map + height / 2 * width;
    float sum = 0.0f;
    for (int i = threadIdx.x % 32; i < width; i += 32) sum += __half2float(row[i]);
    for (int lanes = 16; lanes > 0; lanes /= 2)
        sum += __shfl_xor_sync(strips::ALL_LANES, sum, lanes);
    return sum / static_cast<float>(width);
}

__device__ __forceinline__ Response response_of(const float* cutoff, int channels, int height,
                                                int width) {
    return {inverse_square(cutoff[blockIdx.x % channels]), height, width};
}

// One map from x to low, each of the block's threads with eight complex values throughout.
template <class T>
__device__ __forceinline__ void whole(const T* x, const float* cutoff, int channels, int height,
                                      int width, T* low, Value* shared) {
    const int pixels = height * width;
    const size_t map = static_cast<size_t>(blockIdx.x) * pixels;
    const int values = max(height / 2 * pitch(width), width / 2 * pitch(height));
    Value* row_roots = shared + values;
    Value* column_roots = row_roots + roots(width);
    fill_roots(width, row_roots);
    fill_roots(height, column_roots);
    load_rows(x + map, height, width, 0.0f, shared);
    __syncthreads();
    transform(shared, width, row_roots);

    // Between rows and columns all values change places, through registers. A thread has pairs of
    // rows `height` / 8 apart, at the same v.
    constexpr int PAIRS = THREAD_VALUES / 2;
    const int v = remaining(threadIdx.x, width / 2);
    const int first_pair = divided(threadIdx.x, width / 2);
    Value* lines = shared + first_pair * pitch(width);
    Value* cells = shared + v * pitch(height) + padded(2 * first_pair);
    const int lines_apart = height / THREAD_VALUES * pitch(width);
    const int cells_apart = padded(height / PAIRS);
    RowPair held[PAIRS];
#pragma unroll
    for (int i = 0; i < PAIRS; ++i)
        held[i] = separated(lines + i * lines_apart, v, width, 1.0f / static_cast<float>(width));
    __syncthreads();
#pragma unroll
    for (int i = 0; i < PAIRS; ++i) {
        cells[i * cells_apart] = held[i].even;
        cells[i * cells_apart + 1] = held[i].odd;
    }
    __syncthreads();
    transform(shared, height, column_roots);
    const Response response = response_of(cutoff, channels, height, width);
#pragma unroll 1
    for (int i = threadIdx.x; i < pixels / 2; i += blockDim.x) {
        const int column = divided(i, height);
        response.apply(shared + column * pitch(height), remaining(i, height), column);
    }
    __syncthreads();
    transform(shared, height, column_roots);
#pragma unroll
    for (int i = 0; i < PAIRS; ++i)
        held[i] = {swapped(cells[i * cells_apart]), swapped(cells[i * cells_apart + 1])};
    __syncthreads();
#pragma unroll
    for (int i = 0; i < PAIRS; ++i) join(held[i], v, width, lines + i * lines_apart);
    __syncthreads();
    transform(shared, width, row_roots);
    store_rows(shared, height, width, 0.0f, low + map);
}

// The rows that a block takes, ROWS_THREADS * THREAD_VALUES complex values, begin at this pixel.
__device__ __forceinline__ size_t first_row_px(int height, int width) {
    return (static_cast<size_t>(blockIdx.x) * height) * width +
           static_cast<size_t>(blockIdx.y) * ROWS_THREADS * THREAD_VALUES * 2;
}

// Visit the spectra of the block's pairs of rows in vectors: the pair, the first v and where the
// vector of its even row begins.
template <class T, class Visit>
__device__ __forceinline__ void visit_spectra(int width, const Visit& visit) {
    constexpr int COUNT = Numbers<T>::COUNT / 2;  // complex values of a vector
#pragma unroll
    for (int i = 0; i < THREAD_VALUES / 2 / COUNT; ++i) {
        const int at = (i * ROWS_THREADS + threadIdx.x) * COUNT;
        const int pair = divided(at, width / 2), v = remaining(at, width / 2);
        visit(pair, v, 2 * pair * width + 2 * v);
    }
}

template <class T>
__device__ __forceinline__ void rows(const T* x, int height, int width, T* spectrum,
                                     Value* shared) {
    constexpr int PIXELS = ROWS_THREADS * THREAD_VALUES * 2;
    Value* row_roots = shared + divided(PIXELS / 2, width) * pitch(width);
    const float offset =
        offset_of(x + static_cast<size_t>(blockIdx.x) * height * width, height, width);
    const size_t first = first_row_px(height, width);
    fill_roots(width, row_roots);
    load_rows(x + first, divided(PIXELS, width), width, offset, shared);
    __syncthreads();
    transform(shared, width, row_roots);
    visit_spectra<T>(width, [&](int pair, int v, int at) {
        Numbers<T> even, odd;
#pragma unroll
        for (int k = 0; k < even.COUNT / 2; ++k) {
            const RowPair both = separated(shared + pair * pitch(width), v + k, width,
                                           1.0f / static_cast<float>(width));
            even.values[2 * k] = both.even.re, even.values[2 * k + 1] = both.even.im;
            odd.values[2 * k] = both.odd.re, odd.values[2 * k + 1] = both.odd.im;
        }
        even.store(spectrum + first + at);
        odd.store(spectrum + first + at + width);
    });
}

template <class T>
__device__ __forceinline__ void rows_back(const T* x, const T* spectrum, int height, int width,
                                          T* low, Value* shared) {
    constexpr int PIXELS = ROWS_THREADS * THREAD_VALUES * 2;
    Value* row_roots = shared + divided(PIXELS / 2, width) * pitch(width);
    const float offset =
        offset_of(x + static_cast<size_t>(blockIdx.x) * height * width, height, width);
    const size_t first = first_row_px(height, width);
    fill_roots(width, row_roots);
    visit_spectra<T>(width, [&](int pair, int v, int at) {
        Numbers<T> even, odd;
        even.load(spectrum + first + at);
        odd.load(spectrum + first + at + width);
#pragma unroll
        for (int k = 0; k < even.COUNT / 2; ++k)
            join({{even.values[2 * k], even.values[2 * k + 1]},
                  {odd.values[2 * k], odd.values[2 * k + 1]}},
                 v + k, width, shared + pair * pitch(width));
    });
    __syncthreads();
    transform(shared, width, row_roots);
    store_rows(shared, divided(PIXELS, width), width, offset, low + first);
}

// BLOCK_COLUMNS columns of a spectrum.
template <class T>
__device__ __forceinline__ void columns(const T* spectrum, const float* cutoff, int channels,
                                        int height, int width, T* filtered, Value* shared) {
    constexpr int COUNT = Numbers<T>::COUNT / 2, ROW_VECTORS = BLOCK_COLUMNS / COUNT;
    Value* column_roots = shared + BLOCK_COLUMNS * pitch(height);
    const int first = blockIdx.y * BLOCK_COLUMNS;
    const size_t map = static_cast<size_t>(blockIdx.x) * height * width + 2 * first;
    fill_roots(height, column_roots);
#pragma unroll
    for (int i = 0; i < ROW_VECTORS; ++i) {
        const int at = i * blockDim.x + threadIdx.x, u = at / ROW_VECTORS;
        const int column = at % ROW_VECTORS * COUNT;
        Numbers<T> numbers;
        numbers.load(spectrum + map + u * width + 2 * column);
#pragma unroll
        for (int k = 0; k < COUNT; ++k)
            shared[(column + k) * pitch(height) + padded(u)] = {numbers.values[2 * k],
                                                                numbers.values[2 * k + 1]};
    }
    __syncthreads();
    transform(shared, height, column_roots);
    const Response response = response_of(cutoff, channels, height, width);
#pragma unroll 2
    for (int column = 0; column < BLOCK_COLUMNS; ++column)
        response.apply(shared + column * pitch(height), threadIdx.x, first + column);
    __syncthreads();
    transform(shared, height, column_roots);
#pragma unroll
    for (int i = 0; i < ROW_VECTORS; ++i) {
        const int at = i * blockDim.x + threadIdx.x, u = at / ROW_VECTORS;
        const int column = at % ROW_VECTORS * COUNT;
        Numbers<T> numbers;
#pragma unroll
        for (int k = 0; k < COUNT; ++k) {
            const Value z = swapped(shared[(column + k) * pitch(height) + padded(u)]);
            numbers.values[2 * k] = z.re, numbers.values[2 * k + 1] = z.im;
        }
        numbers.store(filtered + map + u * width + 2 * column);
    }
}

}  // namespace
}  // namespace irstd::spectral_split

namespace split = irstd::spectral_split;

// Launches come from irstd::spectral_split::plan. x, low and out are (images, channels, height,
// width), 16-byte aligned; cutoff (channels), gate_weight (2, 2, 7, 7), gate_bias (2), gamma (2,
// channels). _rows, _columns and _rows_back, in this order, do what _whole does: from x to low.
// What they write may be the spectrum that they read.
#define SHARED(Number) reinterpret_cast<Number*>(shared)
#define KERNELS(T, suffix)                                                                        \
    extern "C" __global__ void __launch_bounds__(split::WHOLE_THREADS)                            \
        irstd_spectral_split_whole_##suffix(const T* __restrict__ x,                              \
                                            const float* __restrict__ cutoff, int channels,       \
                                            int height, int width, T* __restrict__ low) {         \
        extern __shared__ float4 shared[];                                                        \
        split::whole(x, cutoff, channels, height, width, low, SHARED(split::Value));              \
    }                                                                                             \
    extern "C" __global__ void __launch_bounds__(split::ROWS_THREADS)                             \
        irstd_spectral_split_rows_##suffix(const T* __restrict__ x, int height, int width,        \
                                           T* __restrict__ spectrum) {                            \
        extern __shared__ float4 shared[];                                                        \
        split::rows(x, height, width, spectrum, SHARED(split::Value));                            \
    }                                                                                             \
    extern "C" __global__ void __launch_bounds__(split::COLUMNS_THREADS)                          \
        irstd_spectral_split_columns_##suffix(const T* spectrum, const float* __restrict__ cutoff,\
                                              int channels, int height, int width, T* filtered) { \
        extern __shared__ float4 shared[];                                                        \
        split::columns(spectrum, cutoff, channels, height, width, filtered, SHARED(split::Value));\
    }                                                                                             \
    extern "C" __global__ void __launch_bounds__(split::ROWS_THREADS)                             \
        irstd_spectral_split_rows_back_##suffix(const T* __restrict__ x, const T* spectrum,       \
                                                int height, int width, T* low) {                  \
        extern __shared__ float4 shared[];                                                        \
        split::rows_back(x, spectrum, height, width, low, SHARED(split::Value));                  \
    }                                                                                             \
    extern "C" __global__ void __launch_bounds__(irstd::strips::THREADS,                          \
                                                 irstd::strips::BLOCKS_PER_MULTIPROCESSOR)        \
        irstd_spectral_split_gate_##suffix(                                                       \
            const T* __restrict__ x, const T* __restrict__ low,                                   \
            const float* __restrict__ gate_weight, const float* __restrict__ gate_bias,           \
            const float* __restrict__ gamma, int channels, int height, int width,                 \
            int segment_rows, T* __restrict__ out) {                                              \
        extern __shared__ float4 shared[];                                                        \
        split::gate(x, low, gate_weight, gate_bias, gamma, channels, height, width, segment_rows, \
                    out, SHARED(float));                                                          \
    }

KERNELS(float, f32)
KERNELS(__half, f16)
#undef KERNELS
#undef SHARED
