// The program around one .cu file: reads a request, launches one of its kernels, writes the arrays back.
//
// Request, little-endian: u32 length and the kernel's name; u32 grid[3], block[3], shared bytes, is the
// order of threads free; u32 count of buffers, each u64 bytes and their content; u32 count of arguments,
// each u32 kind, u64 a, u64 b: a value (b bytes follow), a pointer (buffer a, b bytes into it) or null.
// Result: the buffers, in that order, without lengths.
#pragma once

namespace irstd_host {

enum Kind : uint32_t { VALUE, POINTER, NULL_POINTER };

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
    unsigned char* data;
    size_t bytes;
};

struct Argument {
    Kind kind;
    uint64_t buffer, offset;
    std::vector<unsigned char> value;
};

struct Request {
    std::string name;
    Index3 grid, block;
    uint32_t shared_bytes, any_order;
    std::vector<Buffer> buffers;
    std::vector<Argument> arguments;
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
        buffer.bytes = in.get<uint64_t>();
        void* data = nullptr;
        if (posix_memalign(&data, 256, buffer.bytes)) fail("no memory for %zu bytes", buffer.bytes);
        buffer.data = static_cast<unsigned char*>(data);
        in.read(buffer.data, buffer.bytes);
    }
    request.arguments.resize(in.get<uint32_t>());
    for (Argument& argument : request.arguments) {
        argument.kind = in.get<Kind>();
        argument.buffer = in.get<uint64_t>();
        argument.offset = in.get<uint64_t>();
        if (argument.kind != VALUE) continue;
        argument.value.resize(argument.offset);
        in.read(argument.value.data(), argument.value.size());
    }
    return request;
}

template <class T>
T argument_of(const Request& request, size_t position) {
    const Argument& argument = request.arguments[position];
    if constexpr (std::is_pointer_v<T>) {
        if (argument.kind == NULL_POINTER) return nullptr;
        if (argument.kind != POINTER)
            fail("%s: argument %zu is a pointer; got a value", request.name.c_str(), position);
        return reinterpret_cast<T>(request.buffers[argument.buffer].data + argument.offset);
    } else {
        if (argument.kind != VALUE || argument.value.size() != sizeof(T))
            fail("%s: argument %zu is a value of %zu bytes; got %s of %zu", request.name.c_str(), position,
                 sizeof(T), argument.kind == VALUE ? "one" : "a pointer", argument.value.size());
        T value;
        memcpy(&value, argument.value.data(), sizeof value);
        return value;
    }
}

template <class... A, size_t... I>
void run_typed(void (*kernel)(A...), const Request& request, bool reverse, std::index_sequence<I...>) {
    if (request.arguments.size() != sizeof...(A))
        fail("%s takes %zu arguments; got %zu", request.name.c_str(), sizeof...(A), request.arguments.size());
    const std::tuple<std::remove_cv_t<A>...> arguments(argument_of<std::remove_cv_t<A>>(request, I)...);
    launch(request.grid, request.block, request.shared_bytes, reverse,
           [&] { kernel(std::get<I>(arguments)...); });
}
template <class... A>
void run(void (*kernel)(A...), const Request& request, bool reverse) {
    run_typed(kernel, request, reverse, std::index_sequence_for<A...>());
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
