// A libcuda.so.1 whose device memory is the host's: what bindings of NVIDIA's driver need to start,
// to move arrays, to launch and to record graphs. It writes every launch to stdout, as
// test_cuda_driver.py reads it, and knows two kernels: copy_bytes(const char* from, char* to, int bytes)
// copies; mixed(char, double, short, float, char*) only records. A device of sm_87, integrated unless
// $FAKE_DISCRETE is set; the driver's version is $FAKE_DRIVER_VERSION.
#include <cuda.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <set>
#include <vector>

namespace {

using Work = std::function<void()>;
using Recording = std::vector<Work>;

Recording* recording = nullptr;  // while a stream records
bool is_recording_broken = false;
std::set<void*> page_locked;  // so that what is not given back can be told
int graphs = 0, streams = 0;
size_t next_stream = 0x5eed;

constexpr char KERNELS[][16] = {"copy_bytes", "mixed"};
int retained = 0;

CUresult with_context(bool is_valid = true) {
    if (!retained) return CUDA_ERROR_INVALID_CONTEXT;
    return is_valid ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

// Do work now, or keep it for the graph. As of a stream, its arguments are known when it is put there.
CUresult put(Work work) {
    if (recording)
        recording->push_back(work);
    else
        work();
    return with_context();
}

// What no graph can hold.
CUresult not_while_recording() {
    if (!recording) return CUDA_SUCCESS;
    is_recording_broken = true;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
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
    switch (error) {
        case CUDA_ERROR_NOT_FOUND: *text = "named symbol not found"; break;
        case CUDA_ERROR_OUT_OF_MEMORY: *text = "out of memory"; break;
        case CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED:
            *text = "operation not permitted when stream is capturing";
            break;
        case CUDA_ERROR_STREAM_CAPTURE_INVALIDATED:
            *text = "operation failed due to a previous error during capture";
            break;
        default: *text = "invalid argument";
    }
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
        case CU_DEVICE_ATTRIBUTE_INTEGRATED: *value = !getenv("FAKE_DISCRETE"); break;
        case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY: *value = 1; break;
        default: *value = 0;
    }
    return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice) {
    ++retained;
    return *context = reinterpret_cast<CUcontext>(0x10), CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease(CUdevice) {
    if (--retained) return CUDA_SUCCESS;
    printf("released with %zu page-locked, %d graphs, %d streams\n", page_locked.size(), graphs,
           streams);
    fflush(stdout);
    return CUDA_SUCCESS;
}
CUresult cuCtxSetCurrent(CUcontext) { return with_context(); }
CUresult cuCtxPushCurrent(CUcontext) { return with_context(); }
CUresult cuCtxPopCurrent(CUcontext* context) {
    return *context = reinterpret_cast<CUcontext>(0x10), CUDA_SUCCESS;
}
CUresult cuCtxSynchronize() { return with_context(); }

CUresult cuMemGetInfo(size_t* free, size_t* total) {
    *free = size_t(3) << 30, *total = size_t(8) << 30;
    return with_context();
}
CUresult cuMemAlloc(CUdeviceptr* address, size_t bytes) {
    if (const CUresult refused = not_while_recording()) return refused;
    if (bytes > size_t(8) << 30) return CUDA_ERROR_OUT_OF_MEMORY;
    void* memory = nullptr;
    const bool is_made = posix_memalign(&memory, 256, bytes) == 0;
    *address = reinterpret_cast<CUdeviceptr>(memory);
    return with_context(is_made);
}
CUresult cuMemFree(CUdeviceptr address) {
    free(reinterpret_cast<void*>(address));
    return with_context();
}
CUresult cuMemHostAlloc(void** address, size_t bytes, unsigned flags) {
    if (bytes > size_t(8) << 30) return CUDA_ERROR_OUT_OF_MEMORY;
    const bool is_made = flags == CU_MEMHOSTALLOC_DEVICEMAP && !posix_memalign(address, 4096, bytes);
    if (is_made) page_locked.insert(*address);
    return with_context(is_made);
}
CUresult cuMemFreeHost(void* address) {
    const bool is_known = page_locked.erase(address);
    if (is_known) free(address);
    return with_context(is_known);
}
CUresult cuMemHostGetDevicePointer(CUdeviceptr* address, void* host, unsigned) {
    *address = reinterpret_cast<CUdeviceptr>(host);
    return with_context(page_locked.count(host));
}
CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, size_t bytes, CUstream) {
    return put([=] { memcpy(reinterpret_cast<void*>(to), from, bytes); });
}
CUresult cuMemcpyDtoHAsync(void* to, CUdeviceptr from, size_t bytes, CUstream) {
    return put([=] { memcpy(to, reinterpret_cast<void*>(from), bytes); });
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
    return put([=] { memset(reinterpret_cast<void*>(to), byte, bytes); });
}

CUresult cuStreamCreate(CUstream* stream, unsigned flags) {
    printf("stream %u\n", flags);
    return ++streams, *stream = reinterpret_cast<CUstream>(next_stream++), with_context();
}
CUresult cuStreamDestroy(CUstream) { return --streams, CUDA_SUCCESS; }
CUresult cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode mode) {
    if (recording || !stream || mode != CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        return CUDA_ERROR_INVALID_VALUE;
    recording = new Recording, is_recording_broken = false;
    return with_context();
}
CUresult cuStreamEndCapture(CUstream, CUgraph* graph) {
    if (!recording) return CUDA_ERROR_INVALID_VALUE;
    *graph = is_recording_broken ? nullptr : reinterpret_cast<CUgraph>(recording);
    if (is_recording_broken) delete recording;
    recording = nullptr;
    return is_recording_broken ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : with_context();
}
CUresult cuGraphInstantiate(CUgraphExec* graph, CUgraph recorded, unsigned long long flags) {
    *graph = reinterpret_cast<CUgraphExec>(new Recording(*reinterpret_cast<Recording*>(recorded)));
    return ++graphs, with_context(flags == 0);
}
// NVIDIA's header gives that function another name, cuda-python asks for it by this one.
#undef cuGraphInstantiate
CUresult cuGraphInstantiate(CUgraphExec* graph, CUgraph recorded, unsigned long long flags) {
    return cuGraphInstantiateWithFlags(graph, recorded, flags);
}
CUresult cuGraphDestroy(CUgraph recorded) {
    return delete reinterpret_cast<Recording*>(recorded), with_context();
}
CUresult cuGraphLaunch(CUgraphExec graph, CUstream) {
    for (const Work& work : *reinterpret_cast<Recording*>(graph)) work();
    return with_context();
}
CUresult cuGraphExecDestroy(CUgraphExec graph) {
    return --graphs, delete reinterpret_cast<Recording*>(graph), with_context();
}
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
    if (strcmp(name, "copy_bytes")) return with_context();
    const std::vector<unsigned char> kept(buffer, buffer + size);
    return put([kept] {
        memcpy(parameter<char*>(kept.data(), 8), parameter<char*>(kept.data(), 0),
               parameter<int>(kept.data(), 16));
    });
}

}  // extern "C"
