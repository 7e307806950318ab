// The entry points of NVIDIA's driver that the TensorRT plugins use, over kernels that run on the CPU:
// included after a .cu file (tests/cuda_host) it makes the library libcuda.so.1 of a test.
//
// Its device has three multiprocessors and takes for an image only the text FAKE_IMAGE. Each launch
// is told on standard error.
#pragma once

namespace irstd_host {

constexpr char FAKE_IMAGE[] = "image of a test";
constexpr int MULTIPROCESSORS = 3;
constexpr unsigned SHARED_WITHOUT_ASKING = 48 * 1024;
enum Result { SUCCESS = 0, INVALID_VALUE = 1, INVALID_IMAGE = 200, NOT_FOUND = 500 };

struct Request {
    Index3 grid, block;
    unsigned shared_bytes;
    void** arguments;
};

template <class... A, size_t... I>
void run_typed(void (*kernel)(A...), const Request& request, bool reverse,
               std::index_sequence<I...>) {
    launch(request.grid, request.block, request.shared_bytes, reverse,
           [&] { kernel(*static_cast<std::remove_cv_t<A>*>(request.arguments[I])...); });
}
template <class... A>
void run(void (*kernel)(A...), const Request& request, bool reverse) {
    run_typed(kernel, request, reverse, std::index_sequence_for<A...>());
}

struct Entry {
    const char* name;
    void (*run)(const Request&, bool reverse);
};
extern const Entry ENTRIES[];  // the kernels of the file, ended by a null name

inline unsigned allowed_shared_bytes = SHARED_WITHOUT_ASKING;

}  // namespace irstd_host

extern "C" {

int cuGetErrorString(int error, const char** said) {
    *said = error == irstd_host::INVALID_IMAGE ? "device kernel image is invalid"
            : error == irstd_host::NOT_FOUND   ? "named symbol not found"
                                               : "invalid argument";
    return irstd_host::SUCCESS;
}

int cuLibraryLoadData(void** library, const void* image, void*, void*, unsigned, void*, void*,
                      unsigned) {
    *library = const_cast<void*>(image);
    return memcmp(image, irstd_host::FAKE_IMAGE, sizeof irstd_host::FAKE_IMAGE - 1)
               ? irstd_host::INVALID_IMAGE
               : irstd_host::SUCCESS;
}

int cuLibraryGetKernel(const void** kernel, void*, const char* name) {
    for (const irstd_host::Entry* known = irstd_host::ENTRIES; known->name; ++known)
        if (!strcmp(name, known->name)) return *kernel = known, irstd_host::SUCCESS;
    return irstd_host::NOT_FOUND;
}

int cuKernelSetAttribute(int, int bytes, const void*, int) {
    irstd_host::allowed_shared_bytes = static_cast<unsigned>(bytes);
    return irstd_host::SUCCESS;
}

int cuCtxGetDevice(int* device) { return *device = 0, irstd_host::SUCCESS; }

int cuDeviceGetAttribute(int* value, int, int) {
    return *value = irstd_host::MULTIPROCESSORS, irstd_host::SUCCESS;
}

int cuLaunchKernel(const void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                   unsigned by, unsigned bz, unsigned shared_bytes, void*, void** arguments, void**) {
    const auto& kernel = *static_cast<const irstd_host::Entry*>(function);
    fprintf(stderr, "launch %s grid %u %u %u block %u %u %u shared %u\n", kernel.name, gx, gy, gz, bx,
            by, bz, shared_bytes);
    const unsigned threads = bx * by * bz;
    const bool fits = gx && gy && gz && threads && threads <= irstd_host::MOST_THREADS &&
                      shared_bytes <= irstd_host::allowed_shared_bytes;
    if (!fits) return irstd_host::INVALID_VALUE;
    kernel.run({{gx, gy, gz}, {bx, by, bz}, shared_bytes, arguments}, false);
    return irstd_host::SUCCESS;
}

}  // extern "C"
