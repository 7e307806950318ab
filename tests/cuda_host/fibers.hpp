// The threads of one block as fibers of one host thread, and what they do together.
//
// Fibers switch only where threads wait for each other, so a run is the same every time. The thread
// sanitizer is told of each fiber and of each barrier: two accesses with no barrier between them are
// a race even though they never overlap here.
#pragma once

#include <cstddef>
#include <functional>

namespace irstd_host {

constexpr int WARP = 32;
constexpr int EXCHANGE_BYTES = 16;  // the largest value of a shuffle
constexpr unsigned MOST_THREADS = 1024;

struct Index3 {
    unsigned x, y, z;
};

// Of the thread that runs.
struct Here {
    Index3 thread, block, block_dim, grid_dim;
};
extern Here here;

unsigned lane();

// Memory is ordered across these two, and only across these, as on a GPU.
void block_barrier();
void warp_barrier(unsigned mask);

// Give `value` to the lanes in `mask` and take theirs: all[lane]. Returns who took part. Orders no memory.
unsigned exchange(unsigned mask, const void* value, size_t size,
                  unsigned char (*all)[EXCHANGE_BYTES], const char* name);
void check_source(unsigned present, int source, const char* name);

// `extern __shared__`: exactly as many bytes as the launch asked for.
void* dynamic_shared();

// Run `thread` for every thread of every block; in descending order if `reverse`.
void launch(Index3 grid, Index3 block, size_t shared_bytes, bool reverse,
            const std::function<void()>& thread);

// Say what the kernel did wrong and end the process.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace irstd_host
