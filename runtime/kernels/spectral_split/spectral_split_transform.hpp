// The Fourier transforms of a block of threads: values lie in shared memory, and every thread takes
// eight of them through a stage in registers. Sides are powers of two from 32 to 512.
#pragma once

#include "../strips_device.hpp"
#include "spectral_split_launch.hpp"

namespace irstd::spectral_split {

using Value = Complex<float>;

// Division by a power of two.
__device__ __forceinline__ int divided(int a, int b) { return a >> (__ffs(b) - 1); }
__device__ __forceinline__ int remaining(int a, int b) { return a & (b - 1); }

// e^(-2 pi i k / n) for k < n / 8, which is all that stages of radix 8 begin with.
__device__ __forceinline__ void fill_roots(int n, Value* roots) {
    for (int k = threadIdx.x; k < n / THREAD_VALUES; k += blockDim.x) {
        float sine, cosine;
        sincospif(static_cast<float>(2 * k) / static_cast<float>(n), &sine, &cosine);
        roots[k] = {cosine, -sine};
    }
}

__device__ __forceinline__ int first_radix(int n) {
    while (n > THREAD_VALUES) n /= THREAD_VALUES;
    return n;
}

// Transform `n` values of each sequence in place, results in natural order; n / 8 neighbouring
// threads take one sequence, and all threads of the block call this together. Every stage
// (Stockham) reads values n / 8 apart and writes them where the next one wants them. The radix that
// is left of n over powers of eight comes first, where it needs no twiddles.
__device__ __forceinline__ void transform(Value* shared, int n, const Value* roots) {
    const int lanes = n / THREAD_VALUES, lane = remaining(threadIdx.x, lanes);
    Value* line = shared + divided(threadIdx.x, lanes) * pitch(n);
#pragma unroll 1
    for (int done = 1; done < n;) {
        Value z[THREAD_VALUES];
#pragma unroll
        for (int i = 0; i < THREAD_VALUES; ++i) z[i] = line[padded(lane + i * lanes)];
        __syncthreads();
        const int radix = done == 1 ? first_radix(n) : THREAD_VALUES;
        if (radix == 2) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                dft2(z[j], z[j + 4]);
                line[padded(2 * (lane + j * lanes))] = z[j];
                line[padded(2 * (lane + j * lanes) + 1)] = z[j + 4];
            }
        } else if (radix == 4) {
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                dft4(z[j], z[j + 2], z[j + 4], z[j + 6]);
#pragma unroll
                for (int k = 0; k < 4; ++k) line[padded(4 * (lane + j * lanes) + k)] = z[j + 2 * k];
            }
        } else {
            const int inner = remaining(lane, done);
            if (done > 1) {
                const Value root = roots[inner * divided(lanes, done)];
                Value power = root;
#pragma unroll
                for (int k = 1; k < THREAD_VALUES; ++k) {
                    z[k] = z[k] * power;
                    power = power * root;
                }
            }
            dft8(z);
            const int first = (lane - inner) * THREAD_VALUES + inner;
#pragma unroll
            for (int k = 0; k < THREAD_VALUES; ++k) line[padded(first + k * done)] = z[k];
        }
        done *= radix;
        __syncthreads();
    }
}

// Two rows of real numbers are transformed as one of complex numbers. Of a row's spectrum there are
// width / 2 values: the first is the mean and the highest frequency, both real.
struct RowPair {
    Value even, odd;
};

__device__ __forceinline__ RowPair separated(const Value* line, int v, int width, float scale) {
    const Value a = line[padded(v)], b = line[padded(v ? width - v : width / 2)];
    if (v == 0) return {{scale * a.re, scale * b.re}, {scale * a.im, scale * b.im}};
    scale *= 0.5f;
    return {{scale * (a.re + b.re), scale * (a.im - b.im)},
            {scale * (a.im + b.im), scale * (b.re - a.re)}};
}

// The reverse, for the inverse transform: parts swapped.
__device__ __forceinline__ void join(RowPair rows, int v, int width, Value* line) {
    const Value x = rows.even, y = rows.odd;
    line[padded(v)] = v ? Value{x.im + y.re, x.re - y.im} : Value{y.re, x.re};
    line[padded(v ? width - v : width / 2)] =
        v ? Value{y.re - x.im, x.re + y.im} : Value{y.im, x.im};
}

// The low-pass of a channel on the spectrum of a map.
struct Response {
    float inverse;  // of the squared cutoff
    int height, width;

    __device__ float at(int u, int v) const {
        const float along = frequency(u, height), across = frequency(v, width);
        return butterworth(along * along * inverse, across * across * inverse,
                           1.0f / static_cast<float>(height));
    }

    // Value u of column v, and for the inverse transform: parts swapped.
    __device__ void apply(Value* line, int u, int v) const {
        if (v == 0) return apply_to_first(line, u);
        const float gain = at(u, v);
        const Value z = line[padded(u)];
        line[padded(u)] = {gain * z.im, gain * z.re};
    }

    // The first column transforms two real ones as one: frequencies u and -u give both apart.
    __device__ void apply_to_first(Value* line, int u) const {
        if (2 * u > height) return;
        const int opposite = u ? height - u : 0;
        const float mean = 0.5f * at(u, 0), highest = 0.5f * at(u, width / 2);
        const Value a = line[padded(u)], b = conj(line[padded(opposite)]);
        const Value x{mean * (a.re + b.re), mean * (a.im + b.im)};        // of the means
        const Value y{highest * (a.re - b.re), highest * (a.im - b.im)};  // i times the other
        line[padded(opposite)] = {y.im - x.im, x.re - y.re};
        line[padded(u)] = {x.im + y.im, x.re + y.re};
    }
};

// A vector of T as numbers in float32, and back.
template <class T>
struct Numbers {
    static constexpr int COUNT = strips::VECTOR_BYTES / sizeof(T), IN_PACK = COUNT / strips::PACKS;
    float values[COUNT];

    __device__ __forceinline__ void load(const T* from) {
        strips::Pack<T> packs[strips::PACKS];
        strips::load_vector(from, packs);
#pragma unroll
        for (int i = 0; i < strips::PACKS; ++i) strips::unpack(packs[i], values + i * IN_PACK);
    }
    __device__ __forceinline__ void store(T* to) const {
        strips::Pack<T> packs[strips::PACKS];
#pragma unroll
        for (int i = 0; i < strips::PACKS; ++i) strips::pack_up(values + i * IN_PACK, packs[i]);
        // An assignment may be taken apart again by the compiler.
        __stwb(reinterpret_cast<uint4*>(to), strips::vector_of(packs));
    }
};

// Where a thread's vectors lie in the rows of a block: below each other.
template <class T>
struct RowVectors {
    int width, first_row, column, step_rows;

    __device__ explicit RowVectors(int width)
        : width(width),
          first_row(divided(threadIdx.x * Numbers<T>::COUNT, width)),
          column(remaining(threadIdx.x * Numbers<T>::COUNT, width)),
          step_rows(divided(blockDim.x * Numbers<T>::COUNT, width)) {}
    __device__ int pixel(int row) const { return row * width + column; }
};

// Rows of a map from and to global memory: a value of `shared` holds a pixel of two rows.
template <class T>
__device__ __forceinline__ void load_rows(const T* x, int rows, int width, float offset,
                                          Value* shared) {
    const RowVectors<T> vectors(width);
#pragma unroll 1
    for (int row = vectors.first_row; row < rows; row += vectors.step_rows) {
        Numbers<T> pixels;
        pixels.load(x + vectors.pixel(row));
        Value* line = shared + row / 2 * pitch(width);
#pragma unroll
        for (int k = 0; k < pixels.COUNT; ++k) {
            Value& value = line[padded(vectors.column + k)];
            (row % 2 ? value.im : value.re) = pixels.values[k] - offset;
        }
    }
}

// After the inverse transform: parts swapped.
template <class T>
__device__ __forceinline__ void store_rows(const Value* shared, int rows, int width, float offset,
                                           T* low) {
    const RowVectors<T> vectors(width);
#pragma unroll 1
    for (int row = vectors.first_row; row < rows; row += vectors.step_rows) {
        Numbers<T> pixels;
        const Value* line = shared + row / 2 * pitch(width);
        const float* parts = reinterpret_cast<const float*>(line) + (row % 2 ? 0 : 1);
#pragma unroll
        for (int k = 0; k < pixels.COUNT; ++k)
            pixels.values[k] = parts[2 * padded(vectors.column + k)] + offset;
        pixels.store(low + vectors.pixel(row));
    }
}

}  // namespace irstd::spectral_split
