// Memory for vectors and whole lines of the cache.
#pragma once

#include <cstddef>

namespace irstd::ms_deform_attn {

class Memory {
public:
    Memory() = default;
    explicit Memory(size_t bytes) { reserve(bytes); }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    ~Memory();

    // At least so many bytes; what was in them is lost if there were fewer. Large memory comes in
    // large pages: the rows that neighbouring queries reach lie on more small ones than a processor
    // keeps addresses of. Throws std::bad_alloc.
    void reserve(size_t bytes);
    void release();
    void* data() { return data_; }

private:
    void* data_ = nullptr;
    size_t bytes_ = 0;
};

}  // namespace irstd::ms_deform_attn
