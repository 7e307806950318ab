// What the memory of a GPU gives at most: 16 bytes read and 16 written by a thread a step.
extern "C" __global__ void irstd_copy(const uint4* __restrict__ from, unsigned long long count,
                                      uint4* __restrict__ to) {
    const unsigned long long stride = static_cast<unsigned long long>(gridDim.x) * blockDim.x;
    for (unsigned long long i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride)
        to[i] = from[i];
}
