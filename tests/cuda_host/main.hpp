// The program around one .cu file: reads a request, launches one of its kernels, writes the arrays back.
//
// Request, little-endian: u32 length and the kernel's name; u32 grid[3], block[3], shared bytes, is the
// order of threads free; u32 count of arrays, each u64 address, u64 bytes and their content; u32 size and
// content of the parameter buffer, as cuLaunchKernel takes it. Pointers in it are addresses in the arrays.
// Result: the arrays, in that order, without lengths.
#pragma once

namespace irstd_host {

class Reader {
public:
    explicit Reader(const char* path) : file_(fopen(path, "rb")) {
        if (!file_) fail("%s: cannot be read", path);
    }
    ~Reader() { fclose(file_); }

    void read(void* to, size_t bytes) {
        if (bytes && fread(to, 1, bytes, file_) != bytes) fail("the request ends too early");
    }
    template <class T> T get() {
        T value;
        read(&value, sizeof value);
        return value;
    }

private:
    FILE* file_;
};

// Global memory: as many bytes as the array has and not one more, aligned as cudaMalloc does.
struct Buffer {
    uint64_t address;  // as the request knows it
    size_t bytes;
    unsigned char* data;
};

struct Request {
    std::string name;
    Index3 grid, block;
    uint32_t shared_bytes, any_order;
    std::vector<Buffer> buffers;
    std::vector<unsigned char> parameters;
};

inline Request read_request(const char* path) {
    Reader in(path);
    Request request;
    request.name.resize(in.get<uint32_t>());
    in.read(&request.name[0], request.name.size());
    request.grid = in.get<Index3>();
    request.block = in.get<Index3>();
    request.shared_bytes = in.get<uint32_t>();
    request.any_order = in.get<uint32_t>();
    request.buffers.resize(in.get<uint32_t>());
    for (Buffer& buffer : request.buffers) {
        buffer.address = in.get<uint64_t>();
        buffer.bytes = in.get<uint64_t>();
        void* data = nullptr;
        if (posix_memalign(&data, 256, buffer.bytes)) fail("no memory for %zu bytes", buffer.bytes);
        buffer.data = static_cast<unsigned char*>(data);
        in.read(buffer.data, buffer.bytes);
    }
    request.parameters.resize(in.get<uint32_t>());
    in.read(request.parameters.data(), request.parameters.size());
    return request;
}

// The parameters of a kernel one after the other, each where its alignment puts it.
class Parameters {
public:
    explicit Parameters(const Request& request) : request_(request) {}

    template <class T>
    T next() {
        offset_ = (offset_ + alignof(T) - 1) / alignof(T) * alignof(T);
        if (offset_ + sizeof(T) > request_.parameters.size())
            fail("%s: %zu bytes of arguments; parameter %d alone needs %zu from byte %zu",
                 request_.name.c_str(), request_.parameters.size(), position_, sizeof(T), offset_);
        T value;
        memcpy(&value, request_.parameters.data() + offset_, sizeof value);
        offset_ += sizeof value;
        if constexpr (std::is_pointer_v<T>) value = reinterpret_cast<T>(find(irstd_bits<uint64_t>(value)));
        ++position_;
        return value;
    }
    void end() const {
        if (offset_ != request_.parameters.size())
            fail("%s: %zu bytes of arguments; its %d parameters take %zu", request_.name.c_str(),
                 request_.parameters.size(), position_, offset_);
    }

private:
    unsigned char* find(uint64_t address) const {
        if (!address) return nullptr;
        for (const Buffer& b : request_.buffers)
            if (address >= b.address && address - b.address < b.bytes) return b.data + (address - b.address);
        fail("%s: parameter %d is a pointer; got %#llx, which is in no array", request_.name.c_str(),
             position_, static_cast<unsigned long long>(address));
    }

    const Request& request_;
    size_t offset_ = 0;
    int position_ = 0;
};

template <class... A>
void run(void (*kernel)(A...), const Request& request, bool reverse) {
    Parameters parameters(request);
    const std::tuple<std::remove_cv_t<A>...> arguments{parameters.next<std::remove_cv_t<A>>()...};
    parameters.end();
    launch(request.grid, request.block, request.shared_bytes, reverse,
           [&] { std::apply(kernel, arguments); });
}

using Run = void (*)(const Request&, bool);
struct Entry {
    const char* name;
    Run run;
};
extern const Entry ENTRIES[];  // the kernels of the file, ended by a null name

inline std::vector<std::vector<unsigned char>> contents(const Request& request) {
    std::vector<std::vector<unsigned char>> all;
    for (const Buffer& b : request.buffers) all.emplace_back(b.data, b.data + b.bytes);
    return all;
}

// Once more from the last block and thread to the first: blocks that write the same place, and threads
// that lean on the order they happen to run in, give another result.
inline void check_order(Run entry, const Request& request,
                        const std::vector<std::vector<unsigned char>>& before) {
    const auto wanted = contents(request);
    for (size_t i = 0; i < before.size(); ++i)
        if (!before[i].empty()) memcpy(request.buffers[i].data, before[i].data(), before[i].size());
    entry(request, true);
    for (size_t i = 0; i < before.size(); ++i)
        for (size_t k = 0; k < wanted[i].size(); ++k)
            if (request.buffers[i].data[k] != wanted[i][k])
                fail("%s: the result depends on the order of blocks or threads (array %zu, byte %zu)",
                     request.name.c_str(), i, k);
}

inline int serve(const char* request_path, const char* result_path) {
    const Request request = read_request(request_path);
    const Entry* entry = ENTRIES;
    while (entry->name && request.name != entry->name) ++entry;
    if (!entry->name) {
        std::string names;
        for (entry = ENTRIES; entry->name; ++entry) names += std::string(" ") + entry->name;
        fail("no kernel %s; there are%s", request.name.c_str(), names.c_str());
    }
    const auto before = contents(request);
    entry->run(request, false);
    if (request.any_order) check_order(entry->run, request, before);
    FILE* out = fopen(result_path, "wb");
    if (!out) fail("%s: cannot be written", result_path);
    for (const Buffer& b : request.buffers) fwrite(b.data, 1, b.bytes, out);
    if (fclose(out)) fail("%s: cannot be written", result_path);
    for (const Buffer& b : request.buffers) free(b.data);
    return 0;
}

}  // namespace irstd_host

int main(int, char** argv) { return irstd_host::serve(argv[1], argv[2]); }
