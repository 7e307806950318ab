// The compiled kernels inside this library, and their launch through the driver.
#pragma once

#include <cuda.h>

#include "../launch.hpp"

namespace irstd::tensorrt {

// Load the kernels if this process has not yet; whether they are loaded. Not while a stream is captured.
bool load_kernels();

// Of the current device; 1 if the driver does not say.
int count_multiprocessors();

bool launch_kernel(const char* kernel, const Launch&, void** arguments, CUstream);

// Launch a kernel with arguments of exactly its parameters' types.
template <typename... Arguments>
bool launch(const char* kernel, const Launch& geometry, CUstream stream, Arguments... arguments) {
    void* addresses[] = {&arguments...};
    return launch_kernel(kernel, geometry, addresses, stream);
}

}  // namespace irstd::tensorrt
