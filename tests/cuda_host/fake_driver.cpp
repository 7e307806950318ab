// A libcuda.so.1 whose device memory is the host's: what bindings of NVIDIA's driver need to start,
// to move arrays and to launch. It writes every launch to stdout, as test_cuda_driver.py reads it, and
// knows two kernels: copy_bytes(const char* from, char* to, int bytes) copies; mixed(char, double,
// short, float, char*) only records. A device of sm_87; the driver's version is $FAKE_DRIVER_VERSION.
#include <cuda.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

constexpr char KERNELS[][16] = {"copy_bytes", "mixed"};
bool is_retained = false;

CUresult with_context(bool is_valid = true) {
    if (!is_retained) return CUDA_ERROR_INVALID_CONTEXT;
    return is_valid ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

template <class T>
T parameter(const unsigned char* buffer, size_t offset) {
    T value;
    memcpy(&value, buffer + offset, sizeof value);
    return value;
}

}  // namespace

extern "C" {

#undef cuGetProcAddress
CUresult cuGetProcAddress_v2(const char* symbol, void** function, int, cuuint64_t,
                             CUdriverProcAddressQueryResult* status) {
    char name[128];
    snprintf(name, sizeof name, "%s_v2", symbol);
    void* self = dlopen(nullptr, RTLD_LAZY);
    Dl_info info;
    if (dladdr(reinterpret_cast<void*>(&cuGetProcAddress_v2), &info))
        self = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    *function = dlsym(self, name);
    if (!*function) *function = dlsym(self, symbol);
    if (status)
        *status = *function ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

CUresult cuInit(unsigned) { return CUDA_SUCCESS; }
CUresult cuDriverGetVersion(int* version) {
    const char* asked = getenv("FAKE_DRIVER_VERSION");
    *version = asked ? atoi(asked) : 13000;
    return CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult error, const char** text) {
    *text = error == CUDA_ERROR_NOT_FOUND ? "named symbol not found" : "invalid argument";
    return CUDA_SUCCESS;
}
CUresult cuGetErrorName(CUresult, const char** text) {
    *text = "CUDA_ERROR";
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int* count) { return *count = 1, CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice* device, int index) { return *device = index, CUDA_SUCCESS; }
CUresult cuDeviceGetName(char* name, int size, CUdevice) {
    return snprintf(name, size, "Fake Orin"), CUDA_SUCCESS;
}
CUresult cuDeviceTotalMem(size_t* bytes, CUdevice) { return *bytes = size_t(8) << 30, CUDA_SUCCESS; }
CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
    switch (attribute) {
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = 8; break;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = 7; break;
        case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 16; break;
        case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE: *value = 4 << 20; break;
        default: *value = 0;
    }
    return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice) {
    is_retained = true;
    return *context = reinterpret_cast<CUcontext>(0x10), CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease(CUdevice) {
    is_retained = false;
    puts("released");
    fflush(stdout);
    return CUDA_SUCCESS;
}
CUresult cuCtxSetCurrent(CUcontext) { return with_context(); }
CUresult cuCtxPushCurrent(CUcontext) { return with_context(); }
CUresult cuCtxPopCurrent(CUcontext* context) {
    return *context = reinterpret_cast<CUcontext>(0x10), CUDA_SUCCESS;
}
CUresult cuCtxSynchronize() { return with_context(); }

CUresult cuMemAlloc(CUdeviceptr* address, size_t bytes) {
    void* memory = nullptr;
    const bool is_made = posix_memalign(&memory, 256, bytes) == 0;
    *address = reinterpret_cast<CUdeviceptr>(memory);
    return with_context(is_made);
}
CUresult cuMemFree(CUdeviceptr address) {
    free(reinterpret_cast<void*>(address));
    return with_context();
}
CUresult cuMemcpyHtoD(CUdeviceptr to, const void* from, size_t bytes) {
    memcpy(reinterpret_cast<void*>(to), from, bytes);
    return with_context();
}
CUresult cuMemcpyDtoH(void* to, CUdeviceptr from, size_t bytes) {
    memcpy(to, reinterpret_cast<void*>(from), bytes);
    return with_context();
}
CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char byte, size_t bytes, CUstream) {
    memset(reinterpret_cast<void*>(to), byte, bytes);
    return with_context();
}

CUresult cuStreamCreate(CUstream* stream, unsigned) {
    return *stream = reinterpret_cast<CUstream>(0x5eed), with_context();
}
CUresult cuStreamDestroy(CUstream) { return CUDA_SUCCESS; }
CUresult cuStreamSynchronize(CUstream) { return with_context(); }
CUresult cuEventCreate(CUevent* event, unsigned) {
    return *event = reinterpret_cast<CUevent>(0xe0e0), with_context();
}
CUresult cuEventDestroy(CUevent) { return CUDA_SUCCESS; }
CUresult cuEventRecord(CUevent, CUstream) { return with_context(); }
CUresult cuEventSynchronize(CUevent) { return with_context(); }
CUresult cuEventElapsedTime(float* ms, CUevent, CUevent) { return *ms = 1.5f, with_context(); }

CUresult cuModuleLoadData(CUmodule* module, const void* image) {
    *module = reinterpret_cast<CUmodule>(0x30);
    return with_context(!strncmp(static_cast<const char*>(image), "image", 5));
}
CUresult cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned, CUjit_option*, void**) {
    return cuModuleLoadData(module, image);
}
CUresult cuModuleUnload(CUmodule) { return CUDA_SUCCESS; }
CUresult cuModuleGetFunction(CUfunction* function, CUmodule, const char* name) {
    for (const auto& kernel : KERNELS)
        if (!strcmp(kernel, name)) {
            *function = reinterpret_cast<CUfunction>(const_cast<char*>(kernel));
            return with_context();
        }
    return CUDA_ERROR_NOT_FOUND;
}
CUresult cuFuncSetAttribute(CUfunction, CUfunction_attribute attribute, int value) {
    printf("attribute %d %d\n", attribute, value);
    return with_context(value <= 163 << 10);
}
CUresult cuFuncSetBlockShape(CUfunction, int, int, int) { return CUDA_SUCCESS; }
CUresult cuLaunchKernel(CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                        unsigned by, unsigned bz, unsigned shared_bytes, CUstream stream,
                        void** parameters, void** extra) {
    if (parameters || !extra || extra[0] != CU_LAUNCH_PARAM_BUFFER_POINTER) return CUDA_ERROR_INVALID_VALUE;
    if (extra[2] != CU_LAUNCH_PARAM_BUFFER_SIZE || extra[4] != CU_LAUNCH_PARAM_END)
        return CUDA_ERROR_INVALID_VALUE;
    const auto* buffer = static_cast<const unsigned char*>(extra[1]);
    const size_t size = *static_cast<size_t*>(extra[3]);
    const char* name = reinterpret_cast<const char*>(function);
    printf("launch %s %u %u %u %u %u %u %u %#zx ", name, gx, gy, gz, bx, by, bz, shared_bytes,
           reinterpret_cast<size_t>(stream));
    for (size_t i = 0; i < size; ++i) printf("%02x", buffer[i]);
    puts("");
    fflush(stdout);
    if (!strcmp(name, "copy_bytes"))
        memcpy(parameter<char*>(buffer, 8), parameter<char*>(buffer, 0), parameter<int>(buffer, 16));
    return with_context();
}

}  // extern "C"
