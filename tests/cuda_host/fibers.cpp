// Compiled without a sanitizer, and linked with whichever watches the kernel.
#include "fibers.hpp"

#include <dlfcn.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

// Of the sanitizers; absent where none is linked.
extern "C" {
__attribute__((weak)) void __sanitizer_start_switch_fiber(void** save, const void* bottom, size_t size);
__attribute__((weak)) void __sanitizer_finish_switch_fiber(void* save, const void** bottom, size_t* size);
__attribute__((weak)) void* __tsan_get_current_fiber();
__attribute__((weak)) void* __tsan_create_fiber(unsigned flags);
__attribute__((weak)) void __tsan_switch_to_fiber(void* fiber, unsigned flags);
__attribute__((weak)) void __tsan_acquire(void* token);
__attribute__((weak)) void __tsan_release(void* token);
// Static shared memory; absent where a kernel has none.
__attribute__((weak)) extern unsigned char __start_irstd_shared[];
__attribute__((weak)) extern unsigned char __stop_irstd_shared[];
}

namespace irstd_host {

Here here;

namespace {

constexpr size_t STACK_BYTES = 256 << 10;
constexpr size_t GUARD_BYTES = 64 << 10;  // at the end of each stack; a multiple of any page
constexpr unsigned NO_SYNC = 1;  // a switch of fibers orders no memory

enum class State { READY, AT_BLOCK, AT_WARP, DONE };

// Where memory is ordered. Two in turn: a thread may be at the next barrier before another has left
// this one, and must not order that one's accesses after its own.
struct Barrier {
    char token[2];
    unsigned generation = 0;
};

struct Fiber {
    ucontext_t context;        // where it starts
    void* place[5];            // where it goes on, of __builtin_setjmp
    bool has_started = false;
    void* tsan = nullptr;
    void* asan_save = nullptr;
    void* stack = nullptr;
    State state = State::DONE;
    unsigned mask = 0;         // of the lanes waited for
    const char* waits_in = "";
    unsigned char value[EXCHANGE_BYTES];
    unsigned present = 0;      // who took part
    const Fiber* leader = nullptr;                // the first of them
    unsigned char values[WARP][EXCHANGE_BYTES];   // what they gave, in the leader
    Index3 index;
};

std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<Barrier> warp_barriers;  // one for each lane that may be the first of a mask
Barrier start, stop, block;
Fiber scheduler;
Fiber* current = nullptr;
const void* main_stack = nullptr;
size_t main_stack_size = 0;
unsigned count = 0;  // threads of the block
const std::function<void()>* body = nullptr;
unsigned char* shared_memory = nullptr;

// libc's own: the address sanitizer's forgets the red zones of the stack.
[[noreturn]] void start_at(const ucontext_t& context) {
    using Set = int (*)(const ucontext_t*);
    static const Set real = [] {
        void* libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
        void* found = libc ? dlsym(libc, "setcontext") : nullptr;
        return found ? reinterpret_cast<Set>(found) : &setcontext;
    }();
    real(&context);
    fail("a fiber does not start");
}

// A function of its own, as the compiler asks for.
[[noreturn, gnu::noinline]] void go_on(Fiber& fiber) { __builtin_longjmp(fiber.place, 1); }

// By the compiler's own means: swapcontext is a system call, with which tests take twice as long, and
// the sanitizers take longjmp for the end of stack frames.
[[gnu::noinline]] void switch_fiber(Fiber& from, Fiber& to) {
    if (__builtin_setjmp(from.place)) return;
    if (to.has_started) go_on(to);
    to.has_started = true;
    start_at(to.context);
}

void acquire(char* token) {
    if (__tsan_acquire) __tsan_acquire(token);
}
void release(char* token) {
    if (__tsan_release) __tsan_release(token);
}

void leave(void** save, const void* bottom, size_t size) {
    if (__sanitizer_start_switch_fiber) __sanitizer_start_switch_fiber(save, bottom, size);
}
void arrive(void* save, bool from_scheduler) {
    if (!__sanitizer_finish_switch_fiber) return;
    if (from_scheduler)
        __sanitizer_finish_switch_fiber(save, &main_stack, &main_stack_size);
    else
        __sanitizer_finish_switch_fiber(save, nullptr, nullptr);
}

void run_fiber(Fiber& fiber) {
    current = &fiber;
    here.thread = fiber.index;
    leave(&scheduler.asan_save, fiber.stack, STACK_BYTES);
    if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(fiber.tsan, NO_SYNC);
    switch_fiber(scheduler, fiber);
    arrive(scheduler.asan_save, false);
    current = nullptr;
}

void yield() {
    Fiber& fiber = *current;
    leave(&fiber.asan_save, main_stack, main_stack_size);
    if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(scheduler.tsan, NO_SYNC);
    switch_fiber(fiber, scheduler);
    arrive(fiber.asan_save, true);
}

// A fiber lives as long as the process: one call of the kernel for every block it is part of.
void fiber_main() {
    arrive(nullptr, true);
    while (true) {
        acquire(start.token);
        (*body)();
        release(stop.token);
        current->state = State::DONE;
        yield();
    }
}

void make_fibers(unsigned wanted) {
    scheduler.has_started = true;
    if (!scheduler.tsan && __tsan_get_current_fiber) scheduler.tsan = __tsan_get_current_fiber();
    while (fibers.size() < wanted) {
        auto fiber = std::make_unique<Fiber>();
        fiber->stack = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (fiber->stack == MAP_FAILED) fail("no memory for the stacks of %u threads", wanted);
        mprotect(fiber->stack, GUARD_BYTES, PROT_NONE);
        getcontext(&fiber->context);
        fiber->context.uc_stack.ss_sp = fiber->stack;
        fiber->context.uc_stack.ss_size = STACK_BYTES;
        fiber->context.uc_link = nullptr;
        makecontext(&fiber->context, fiber_main, 0);
        if (__tsan_create_fiber) fiber->tsan = __tsan_create_fiber(0);
        fibers.push_back(std::move(fiber));
    }
    warp_barriers.resize((wanted + WARP - 1) / WARP * WARP);
}

unsigned alive_in_warp(unsigned warp) {
    unsigned alive = 0;
    for (unsigned i = warp * WARP; i < count && i < (warp + 1) * WARP; ++i)
        alive |= unsigned(fibers[i]->state != State::DONE) << i % WARP;
    return alive;
}

Barrier& barrier_of(unsigned warp, unsigned mask) {
    return warp_barriers[warp * WARP + __builtin_ctz(mask)];
}

// Let go of the lanes of a warp whose partners are all there. Threads that ended are not waited for.
bool release_warp(unsigned warp) {
    bool released = false;
    const unsigned alive = alive_in_warp(warp);
    for (unsigned i = warp * WARP; i < count && i < (warp + 1) * WARP; ++i) {
        Fiber& first = *fibers[i];
        if (first.state != State::AT_WARP) continue;
        const unsigned wanted = first.mask & alive;
        unsigned there = 0;
        for (unsigned k = warp * WARP; k < count && k < (warp + 1) * WARP; ++k) {
            const Fiber& fiber = *fibers[k];
            const bool same = fiber.state == State::AT_WARP && fiber.mask == first.mask &&
                              !strcmp(fiber.waits_in, first.waits_in);
            there |= unsigned(same) << k % WARP;
        }
        if ((there & wanted) != wanted) continue;
        ++barrier_of(warp, first.mask).generation;
        for (unsigned k = 0; k < WARP; ++k) {
            if (!(there >> k & 1)) continue;
            Fiber& fiber = *fibers[warp * WARP + k];
            fiber.state = State::READY;
            fiber.present = there;
            fiber.leader = &first;
            memcpy(first.values[k], fiber.value, EXCHANGE_BYTES);
        }
        released = true;
    }
    return released;
}

bool release_block() {
    for (unsigned i = 0; i < count; ++i)
        if (fibers[i]->state != State::AT_BLOCK && fibers[i]->state != State::DONE) return false;
    ++block.generation;
    for (unsigned i = 0; i < count; ++i)
        if (fibers[i]->state == State::AT_BLOCK) fibers[i]->state = State::READY;
    return true;
}

[[noreturn]] void fail_stuck() {
    const Fiber* waits[2] = {nullptr, nullptr};  // two that wait in different places
    for (unsigned i = 0; i < count; ++i) {
        const Fiber* fiber = fibers[i].get();
        if (fiber->state == State::DONE) continue;
        if (!waits[0]) waits[0] = fiber;
        const bool differs = fiber->mask != waits[0]->mask || strcmp(fiber->waits_in, waits[0]->waits_in);
        if (!waits[1] && differs) waits[1] = fiber;
    }
    const Fiber& a = *waits[0];
    const Fiber& b = waits[1] ? *waits[1] : a;
    fail("block (%u, %u, %u) is stuck: thread (%u, %u, %u) waits in %s (mask %08x), thread "
         "(%u, %u, %u) in %s (mask %08x)",
         here.block.x, here.block.y, here.block.z, a.index.x, a.index.y, a.index.z, a.waits_in,
         a.mask, b.index.x, b.index.y, b.index.z, b.waits_in, b.mask);
}

void run_block(bool reverse) {
    for (unsigned i = 0; i < count; ++i) fibers[i]->state = State::READY;
    while (true) {
        bool is_done = true;
        for (unsigned i = 0; i < count; ++i) {
            Fiber& fiber = *fibers[reverse ? count - 1 - i : i];
            if (fiber.state == State::READY) run_fiber(fiber);
            is_done &= fiber.state == State::DONE;
        }
        if (is_done) return;
        bool released = false;
        for (unsigned warp = 0; warp * WARP < count; ++warp) released |= release_warp(warp);
        if (!released && !release_block()) fail_stuck();
    }
}

// All bits set is NaN in float and in half: what was not written does not pass for a zero. Volatile,
// because a call of memset would be watched, and the red zones between arrays are in the range.
void forget_shared(size_t bytes) {
    for (volatile unsigned char* p = __start_irstd_shared; p < __stop_irstd_shared; ++p) *p = 0xff;
    memset(shared_memory, 0xff, bytes);
}

unsigned index_in_block(const Fiber& fiber) {
    const Index3& d = here.block_dim;
    return (fiber.index.z * d.y + fiber.index.y) * d.x + fiber.index.x;
}

void wait_in_warp(unsigned mask, const char* name) {
    if (!(mask >> lane() & 1)) fail("%s: the mask %08x lacks the calling lane %u", name, mask, lane());
    current->mask = mask;
    current->waits_in = name;
    current->state = State::AT_WARP;
    yield();
}

}  // namespace

unsigned lane() { return index_in_block(*current) % WARP; }

void* dynamic_shared() { return shared_memory; }

void block_barrier() {
    char* token = &block.token[block.generation & 1];
    release(token);
    current->mask = 0;
    current->waits_in = "__syncthreads";
    current->state = State::AT_BLOCK;
    yield();
    acquire(token);
}

void warp_barrier(unsigned mask) {
    if (!(mask >> lane() & 1)) fail("__syncwarp: the mask %08x lacks the calling lane %u", mask, lane());
    Barrier& barrier = barrier_of(index_in_block(*current) / WARP, mask);
    char* token = &barrier.token[barrier.generation & 1];
    release(token);
    wait_in_warp(mask, "__syncwarp");
    acquire(token);
}

unsigned exchange(unsigned mask, const void* value, size_t size,
                  unsigned char (*all)[EXCHANGE_BYTES], const char* name) {
    memcpy(current->value, value, size);
    wait_in_warp(mask, name);
    memcpy(all, current->leader->values, sizeof current->leader->values);
    return current->present;
}

void check_source(unsigned present, int source, const char* name) {
    if (source < 0 || source >= WARP || !(present >> source & 1))
        fail("%s: lane %u reads lane %d, which takes no part (lanes there: %08x)", name, lane(), source,
             present);
}

void launch(Index3 grid, Index3 dim, size_t shared_bytes, bool reverse,
            const std::function<void()>& thread) {
    count = dim.x * dim.y * dim.z;
    if (!count || count > MOST_THREADS) fail("%u threads in a block; wanted 1 to %u", count, MOST_THREADS);
    make_fibers(count);
    here.grid_dim = grid;
    here.block_dim = dim;
    body = &thread;
    shared_memory = static_cast<unsigned char*>(aligned_alloc(16, (shared_bytes + 15) / 16 * 16));
    for (unsigned i = 0; i < count; ++i)
        fibers[i]->index = {i % dim.x, i / dim.x % dim.y, i / (dim.x * dim.y)};
    const size_t blocks = size_t(grid.x) * grid.y * grid.z;
    for (size_t i = 0; i < blocks; ++i) {
        const size_t b = reverse ? blocks - 1 - i : i;
        here.block = {unsigned(b % grid.x), unsigned(b / grid.x % grid.y), unsigned(b / grid.x / grid.y)};
        forget_shared(shared_bytes);
        release(start.token);
        run_block(reverse);
        acquire(stop.token);
    }
    free(shared_memory);
    shared_memory = nullptr;
}

void fail(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("cuda_host: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    _Exit(3);
}

}  // namespace irstd_host
