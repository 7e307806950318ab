// What TensorRT does with a plugin from the ONNX node to the result, without TensorRT: its public
// headers say all of it. Usage: main LIBRARY REQUEST RESULT
//
// Request, little-endian: u32 count of fields, each u32 length and the name, u32 count and i32
// values; u32 count of inputs, each u32 DataType, u32 count and i64 sizes, and the numbers.
// Result: u32 count and i64 sizes of the output, and its numbers. On standard output, a line each:
// which types fit at each position, the workspace in bytes, the timing cache's suffix.
#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

using namespace nvinfer1;

namespace {

[[noreturn]] void fail(const std::string& said) {
    fprintf(stderr, "refused: %s\n", said.c_str());
    exit(1);
}

void need(bool holds, const char* what) {
    if (!holds) fail(what);
}

class Reader {
public:
    explicit Reader(const char* path) : file_(fopen(path, "rb")) { need(file_, path); }
    ~Reader() { fclose(file_); }
    void read(void* to, size_t bytes) {
        need(!bytes || fread(to, 1, bytes, file_) == bytes, "the request ends too early");
    }
    template <class T>
    T get() {
        T value;
        read(&value, sizeof value);
        return value;
    }

private:
    FILE* file_;
};

struct Constant final : IDimensionExpr, apiv::VDimensionExpr {
    explicit Constant(int64_t value) : value(value) { mImpl = this; }
    bool isConstant() const override { return true; }
    int64_t getConstantValue() const override { return value; }
    bool isSizeTensor() const override { return false; }
    int64_t value;
};

// Evaluates at once: every shape is known.
struct Builder final : IExprBuilder, apiv::VExprBuilder {
    Builder() { mImpl = this; }
    const IDimensionExpr* constant(int64_t value) override { return &made.emplace_back(value); }
    const IDimensionExpr* operation(DimensionOperation op, const IDimensionExpr& a,
                                    const IDimensionExpr& b) override {
        need(op == DimensionOperation::kPROD, "an operation that this host does not know");
        return constant(a.getConstantValue() * b.getConstantValue());
    }
    const IDimensionExpr* declareSizeTensor(int32_t, const IDimensionExpr&,
                                            const IDimensionExpr&) override {
        fail("a size tensor");
    }
    std::deque<Constant> made;
};

size_t bytes_of(const PluginTensorDesc& tensor) {
    size_t bytes = tensor.type == DataType::kHALF ? 2 : 4;
    for (int i = 0; i < tensor.dims.nbDims; ++i) bytes *= static_cast<size_t>(tensor.dims.d[i]);
    return bytes;
}

// As a device gives it: aligned, and holding no number.
struct Free {
    void operator()(void* memory) const { free(memory); }
};
using Memory = std::unique_ptr<void, Free>;
Memory allocate(size_t bytes) {
    void* memory = nullptr;
    need(posix_memalign(&memory, 256, bytes + 1) == 0, "memory");
    memset(memory, 0xff, bytes);
    return Memory(memory);
}

struct Field {
    std::string name;
    std::vector<int32_t> values;
};

IPluginV3* create(IPluginCreatorV3One* creator, const PluginFieldCollection* fields,
                  TensorRTPhase phase) {
    IPluginV3* plugin = creator->createPlugin("node", fields, phase);
    need(plugin, "createPlugin");
    return plugin;
}

template <class Capability>
Capability* capability(IPluginV3* plugin, PluginCapabilityType type) {
    return static_cast<Capability*>(plugin->getCapabilityInterface(type));
}

IPluginCreatorV3One* load(const char* path) {
    void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    need(library, library ? "" : dlerror());
    using GetCreators = IPluginCreatorInterface* const* (*)(int32_t&);
    const auto get = reinterpret_cast<GetCreators>(dlsym(library, "getCreators"));
    need(get && dlsym(library, "setLoggerFinder"), "getCreators, setLoggerFinder");
    int32_t count = 0;
    IPluginCreatorInterface* const* creators = get(count);
    need(count == 1, "one creator");
    need(!strcmp(creators[0]->getInterfaceInfo().kind, "PLUGIN CREATOR_V3ONE"), "a V3 creator");
    return static_cast<IPluginCreatorV3One*>(creators[0]);
}

// The types that fit at each position where all before it are as they are: f float, h half, i int8,
// v a vectorised format.
void print_formats(IPluginV3OneBuild* build, std::vector<DynamicPluginTensorDesc> all, int inputs) {
    printf("formats");
    for (size_t i = 0; i < all.size(); ++i) {
        const auto fits = [&](DataType type, TensorFormat format) {
            auto asked = all;
            asked[i].desc.type = type;
            asked[i].desc.format = format;
            return build->supportsFormatCombination(static_cast<int>(i), asked.data(), inputs, 1);
        };
        printf(" %s%s%s%s", fits(DataType::kFLOAT, TensorFormat::kLINEAR) ? "f" : "",
               fits(DataType::kHALF, TensorFormat::kLINEAR) ? "h" : "",
               fits(DataType::kINT8, TensorFormat::kLINEAR) ? "i" : "",
               fits(all[i].desc.type, TensorFormat::kCHW4) ? "v" : "");
    }
    printf("\n");
}

DynamicPluginTensorDesc fixed(const PluginTensorDesc& tensor) {
    return {tensor, tensor.dims, tensor.dims, tensor.dims};
}

}  // namespace

int main(int, char** argv) {
    IPluginCreatorV3One* creator = load(argv[1]);
    Reader in(argv[2]);

    std::vector<Field> fields(in.get<uint32_t>());
    std::vector<PluginField> given;
    for (Field& field : fields) {
        field.name.resize(in.get<uint32_t>());
        in.read(&field.name[0], field.name.size());
        field.values.resize(in.get<uint32_t>());
        in.read(field.values.data(), 4 * field.values.size());
        given.emplace_back(field.name.c_str(), field.values.data(), PluginFieldType::kINT32,
                           static_cast<int32_t>(field.values.size()));
    }
    std::vector<PluginTensorDesc> inputs(in.get<uint32_t>());
    std::vector<Memory> memory;
    std::vector<const void*> addresses;
    for (PluginTensorDesc& input : inputs) {
        input.type = static_cast<DataType>(in.get<uint32_t>());
        input.format = TensorFormat::kLINEAR;
        input.dims.nbDims = static_cast<int32_t>(in.get<uint32_t>());
        for (int i = 0; i < input.dims.nbDims; ++i) input.dims.d[i] = in.get<int64_t>();
        memory.push_back(allocate(bytes_of(input)));
        in.read(memory.back().get(), bytes_of(input));
        addresses.push_back(memory.back().get());
    }
    const int count = static_cast<int>(inputs.size());

    const PluginFieldCollection collection{static_cast<int32_t>(given.size()), given.data()};
    std::unique_ptr<IPluginV3> built(create(creator, &collection, TensorRTPhase::kBUILD));
    const auto core = capability<IPluginV3OneCore>(built.get(), PluginCapabilityType::kCORE);
    need(!strcmp(core->getPluginName(), creator->getPluginName()), "the name");
    need(!strcmp(core->getPluginNamespace(), "irstd"), "the namespace");
    const auto build = capability<IPluginV3OneBuild>(built.get(), PluginCapabilityType::kBUILD);

    Builder builder;
    std::vector<DimsExprs> sizes(inputs.size());
    std::vector<DataType> types;
    for (int i = 0; i < count; ++i) {
        types.push_back(inputs[i].type);
        sizes[i].nbDims = inputs[i].dims.nbDims;
        for (int k = 0; k < sizes[i].nbDims; ++k)
            sizes[i].d[k] = builder.constant(inputs[i].dims.d[k]);
    }
    PluginTensorDesc output{};
    output.format = TensorFormat::kLINEAR;
    DimsExprs size;
    need(build->getNbOutputs() == 1, "one output");
    need(!build->getOutputDataTypes(&output.type, 1, types.data(), count), "getOutputDataTypes");
    need(!build->getOutputShapes(sizes.data(), count, nullptr, 0, &size, 1, builder),
         "getOutputShapes");
    output.dims.nbDims = size.nbDims;
    for (int i = 0; i < size.nbDims; ++i) output.dims.d[i] = size.d[i]->getConstantValue();

    std::vector<DynamicPluginTensorDesc> all;
    for (const PluginTensorDesc& input : inputs) all.push_back(fixed(input));
    all.push_back(fixed(output));
    print_formats(build, all, count);
    for (int i = 0; i <= count; ++i)
        need(build->supportsFormatCombination(i, all.data(), count, 1), "the types");
    need(!build->configurePlugin(all.data(), count, &all.back(), 1), "configurePlugin");
    const size_t workspace_bytes = build->getWorkspaceSize(all.data(), count, &all.back(), 1);
    printf("workspace %zu\ntiming %s\n", workspace_bytes, build->getTimingCacheID());

    // The engine keeps only what is serialised; nothing else of the first plugin is left.
    const auto* kept = capability<IPluginV3OneRuntime>(built.get(), PluginCapabilityType::kRUNTIME)
                           ->getFieldsToSerialize();
    std::unique_ptr<IPluginV3> loaded(create(creator, kept, TensorRTPhase::kRUNTIME));
    built.reset();
    std::unique_ptr<IPluginV3> attached(
        capability<IPluginV3OneRuntime>(loaded.get(), PluginCapabilityType::kRUNTIME)
            ->attachToContext(nullptr));
    need(attached != nullptr, "attachToContext");
    loaded.reset();
    const auto run =
        capability<IPluginV3OneRuntime>(attached.get(), PluginCapabilityType::kRUNTIME);
    need(!run->onShapeChange(inputs.data(), count, &output, 1), "onShapeChange");
    const Memory workspace = allocate(workspace_bytes), result = allocate(bytes_of(output));
    void* outputs[] = {result.get()};
    need(!run->enqueue(inputs.data(), &output, addresses.data(), outputs, workspace.get(), nullptr),
         "enqueue");

    FILE* out = fopen(argv[3], "wb");
    need(out, argv[3]);
    const uint32_t rank = static_cast<uint32_t>(output.dims.nbDims);
    fwrite(&rank, 4, 1, out);
    for (uint32_t i = 0; i < rank; ++i) {
        const int64_t side = output.dims.d[i];
        fwrite(&side, 8, 1, out);
    }
    fwrite(result.get(), 1, bytes_of(output), out);
    need(!fclose(out), argv[3]);
}
