// The driver is opened when it is first needed, so that the library builds and loads without one.
// Libraries of the driver (CUDA 12) belong to no context: they are loaded once for a process.
#include "module.hpp"

#include <dlfcn.h>

#include "operator.hpp"

#if !defined(IRSTD_IMAGE)
#error "IRSTD_IMAGE: wanted the path of the compiled kernels, in quotation marks"
#endif

// A fat binary, a cubin or PTX; PTX is text that ends with a zero.
__asm__(
    ".pushsection .rodata\n"
    ".balign 16\n"
    ".hidden irstd_kernels_image\n"
    ".global irstd_kernels_image\n"
    "irstd_kernels_image:\n"
    ".incbin \"" IRSTD_IMAGE "\"\n"
    ".byte 0\n"
    ".popsection\n");
extern "C" __attribute__((visibility("hidden"))) const unsigned char irstd_kernels_image[];

namespace irstd::tensorrt {
namespace {

constexpr unsigned SHARED_WITHOUT_ASKING = 48 * 1024;

struct Driver {
    decltype(&cuLibraryLoadData) load = nullptr;
    decltype(&cuLibraryGetKernel) get_kernel = nullptr;
    decltype(&cuKernelSetAttribute) set_attribute = nullptr;
    decltype(&cuCtxGetDevice) get_device = nullptr;
    decltype(&cuDeviceGetAttribute) get_attribute = nullptr;
    decltype(&cuLaunchKernel) launch = nullptr;
    decltype(&cuGetErrorString) error_string = nullptr;
    CUlibrary library = nullptr;
};

bool succeeded(const Driver& driver, CUresult result, const char* what) {
    if (result == CUDA_SUCCESS) return true;
    const char* said = "unknown error";
    driver.error_string(result, &said);
    log_error(what, said);
    return false;
}

template <typename Function>
bool find(void* library, const char* name, Function& function) {
    function = reinterpret_cast<Function>(dlsym(library, name));
    if (!function) log_error("the driver is older than CUDA 12; it lacks ", name);
    return function != nullptr;
}

Driver open_driver() {
    Driver driver;
    void* library = dlopen("libcuda.so.1", RTLD_NOW);
    if (!library) {
        log_error("no NVIDIA driver: ", dlerror());
        return {};
    }
    const bool has_all = find(library, "cuGetErrorString", driver.error_string) &&
                         find(library, "cuLibraryLoadData", driver.load) &&
                         find(library, "cuLibraryGetKernel", driver.get_kernel) &&
                         find(library, "cuKernelSetAttribute", driver.set_attribute) &&
                         find(library, "cuCtxGetDevice", driver.get_device) &&
                         find(library, "cuDeviceGetAttribute", driver.get_attribute) &&
                         find(library, "cuLaunchKernel", driver.launch);
    if (!has_all) return {};
    const CUresult result = driver.load(&driver.library, irstd_kernels_image, nullptr, nullptr, 0,
                                        nullptr, nullptr, 0);
    return succeeded(driver, result, "the kernels do not load: ") ? driver : Driver{};
}

const Driver& driver() {
    static const Driver opened = open_driver();
    return opened;
}

}  // namespace

bool load_kernels() { return driver().library != nullptr; }

int count_multiprocessors() {
    CUdevice device;
    int count;
    const bool known = load_kernels() && driver().get_device(&device) == CUDA_SUCCESS &&
                       driver().get_attribute(&count, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
                                              device) == CUDA_SUCCESS;
    return known ? count : 1;
}

bool launch_kernel(const char* name, const Launch& geometry, void** arguments, CUstream stream) {
    if (!load_kernels()) return false;
    const Driver& cuda = driver();
    CUkernel kernel;
    if (!succeeded(cuda, cuda.get_kernel(&kernel, cuda.library, name), name)) return false;
    if (geometry.shared_bytes > SHARED_WITHOUT_ASKING) {
        CUdevice device;
        const bool may = succeeded(cuda, cuda.get_device(&device), name) &&
                         succeeded(cuda,
                                   cuda.set_attribute(
                                       CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                       static_cast<int>(geometry.shared_bytes), kernel, device),
                                   name);
        if (!may) return false;
    }
    // The driver takes a kernel of a library where a function of a module is wanted.
    const CUresult result = cuda.launch(
        reinterpret_cast<CUfunction>(kernel), geometry.grid[0], geometry.grid[1], geometry.grid[2],
        geometry.block[0], geometry.block[1], geometry.block[2], geometry.shared_bytes, stream,
        arguments, nullptr);
    return succeeded(cuda, result, name);
}

}  // namespace irstd::tensorrt
