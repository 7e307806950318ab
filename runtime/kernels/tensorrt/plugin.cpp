// The plugin of OPERATOR for TensorRT 10.3 and later, and its creator. Nothing in a plugin is
// allocated but itself: there is nothing that could throw across TensorRT's interface.
#include <cstdio>
#include <cstring>
#include <new>

#include "operator.hpp"

#if !defined(IRSTD_IMAGE_ID)
#error "IRSTD_IMAGE_ID: wanted the hash of the compiled kernels, in quotation marks"
#endif

namespace irstd::tensorrt {
namespace {

using namespace nvinfer1;

constexpr const char* NAMESPACE = "irstd";
constexpr const char* VERSION = "1";
constexpr int OK = 0, FAILED = -1;

ILoggerFinder* logger_finder = nullptr;

int attribute_count() {
    int count = 0;
    while (count < MOST_ATTRIBUTES && OPERATOR.attributes[count]) ++count;
    return count;
}

bool is_static(const Dims& dims) {
    for (int axis = 0; axis < dims.nbDims; ++axis)
        if (dims.d[axis] < 0) return false;
    return true;
}

const Dims& dims_of(const PluginTensorDesc& tensor) { return tensor.dims; }
const Dims& dims_of(const DynamicPluginTensorDesc& tensor) { return tensor.desc.dims; }

template <typename Tensor>
Shapes shapes_of(const Tensor* inputs, int count) {
    Shapes shapes{};
    shapes.count = count;
    for (int i = 0; i < count && i < MOST_INPUTS; ++i) shapes.inputs[i] = dims_of(inputs[i]);
    return shapes;
}

bool is_refused(const char* complaint) {
    if (complaint) log_error(complaint);
    return complaint != nullptr;
}

class Plugin final : public IPluginV3,
                     public IPluginV3OneCore,
                     public IPluginV3OneBuild,
                     public IPluginV3OneRuntime {
public:
    explicit Plugin(const Attributes& attributes) : attributes_(attributes) {}
    Plugin(const Plugin& other) : Plugin(other.attributes_) {}

    // IPluginV3
    IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override {
        switch (type) {
            case PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore*>(this);
            case PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild*>(this);
            case PluginCapabilityType::kRUNTIME: return static_cast<IPluginV3OneRuntime*>(this);
        }
        return nullptr;
    }
    IPluginV3* clone() noexcept override { return new (std::nothrow) Plugin(*this); }

    // IPluginV3OneCore
    const char* getPluginName() const noexcept override { return OPERATOR.name; }
    const char* getPluginVersion() const noexcept override { return VERSION; }
    const char* getPluginNamespace() const noexcept override { return NAMESPACE; }

    // IPluginV3OneBuild
    int32_t getNbOutputs() const noexcept override { return 1; }

    int32_t getOutputDataTypes(DataType* outputs, int32_t output_count, const DataType* inputs,
                               int32_t input_count) const noexcept override {
        if (output_count != 1 || !is_count(input_count)) return FAILED;
        outputs[0] = inputs[0];
        return OK;
    }

    int32_t getOutputShapes(const DimsExprs* inputs, int32_t input_count, const DimsExprs*, int32_t,
                            DimsExprs* outputs, int32_t output_count,
                            IExprBuilder& expressions) noexcept override {
        if (output_count != 1 || !is_count(input_count)) return FAILED;
        outputs[0] = OPERATOR.output(inputs, expressions);
        return OK;
    }

    bool supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc* tensors,
                                   int32_t input_count, int32_t) noexcept override {
        const PluginTensorDesc& tensor = tensors[position].desc;
        if (tensor.format != TensorFormat::kLINEAR) return false;
        if (position == 0)
            return tensor.type == DataType::kFLOAT || tensor.type == DataType::kHALF;
        const bool is_float32 = position < input_count && (OPERATOR.float32_inputs >> position & 1);
        return tensor.type == (is_float32 ? DataType::kFLOAT : tensors[0].desc.type);
    }

    int32_t configurePlugin(const DynamicPluginTensorDesc* inputs, int32_t input_count,
                            const DynamicPluginTensorDesc*, int32_t) noexcept override {
        for (int i = 0; i < input_count; ++i)
            if (!is_static(inputs[i].desc.dims)) return OK;  // onShapeChange will see
        return check(shapes_of(inputs, input_count));
    }

    size_t getWorkspaceSize(const DynamicPluginTensorDesc* inputs, int32_t input_count,
                            const DynamicPluginTensorDesc*, int32_t) const noexcept override {
        Shapes largest = shapes_of(inputs, input_count);
        for (int i = 0; i < input_count && i < MOST_INPUTS; ++i) largest.inputs[i] = inputs[i].max;
        return OPERATOR.workspace_bytes(attributes_, largest, is_half(inputs[0].desc));
    }

    // An engine that was timed with other kernels or attributes says nothing about these.
    const char* getTimingCacheID() noexcept override {
        int length = std::snprintf(timing_id_, sizeof timing_id_, "%s", IRSTD_IMAGE_ID);
        for (int i = 0; i < attribute_count(); ++i)
            for (int k = 0; k <= attributes_.list[i].count; ++k) {
                const int value = k ? attributes_.list[i].values[k - 1] : attributes_.list[i].count;
                length += std::snprintf(timing_id_ + length, sizeof timing_id_ - length, ":%d", value);
            }
        return timing_id_;
    }

    // IPluginV3OneRuntime
    int32_t onShapeChange(const PluginTensorDesc* inputs, int32_t input_count,
                          const PluginTensorDesc*, int32_t) noexcept override {
        shapes_ = shapes_of(inputs, input_count);
        return check(shapes_) == OK && load_kernels() ? OK : FAILED;
    }

    int32_t enqueue(const PluginTensorDesc* input_descriptions, const PluginTensorDesc*,
                    const void* const* inputs, void* const* outputs, void* workspace,
                    cudaStream_t stream) noexcept override {
        const bool half = is_half(input_descriptions[0]);
        return OPERATOR.enqueue({attributes_, shapes_, half, inputs, outputs[0], workspace, stream})
                   ? OK
                   : FAILED;
    }

    IPluginV3* attachToContext(IPluginResourceContext*) noexcept override { return clone(); }

    const PluginFieldCollection* getFieldsToSerialize() noexcept override {
        const int count = attribute_count();
        for (int i = 0; i < count; ++i)
            fields_[i] = {OPERATOR.attributes[i], attributes_.list[i].values, PluginFieldType::kINT32,
                          attributes_.list[i].count};
        collection_ = {count, fields_};
        return &collection_;
    }

private:
    static bool is_half(const PluginTensorDesc& tensor) { return tensor.type == DataType::kHALF; }

    static bool is_count(int inputs) {
        return !is_refused(inputs < OPERATOR.fewest_inputs || inputs > OPERATOR.most_inputs
                               ? "wrong number of inputs"
                               : nullptr);
    }

    int32_t check(const Shapes& shapes) const {
        if (!is_count(shapes.count)) return FAILED;
        return is_refused(OPERATOR.refuse_shapes(attributes_, shapes)) ? FAILED : OK;
    }

    Attributes attributes_;
    Shapes shapes_{};  // of the inputs, since the last onShapeChange
    PluginField fields_[MOST_ATTRIBUTES];
    PluginFieldCollection collection_{};
    char timing_id_[512];  // a hash and at most 18 numbers
};

class Creator final : public IPluginCreatorV3One {
public:
    Creator() {
        for (int i = 0; i < attribute_count(); ++i)
            fields_[i] = {OPERATOR.attributes[i], nullptr, PluginFieldType::kINT32, 0};
        collection_ = {attribute_count(), fields_};
    }

    // Builds from the attributes of an ONNX node, or at run time from what a plugin serialised.
    IPluginV3* createPlugin(const char*, const PluginFieldCollection* fields,
                            TensorRTPhase) noexcept override {
        Attributes attributes{};
        for (int i = 0; i < fields->nbFields; ++i)
            if (!read(fields->fields[i], attributes)) return nullptr;
        if (is_refused(OPERATOR.refuse_attributes(attributes))) return nullptr;
        return new (std::nothrow) Plugin(attributes);
    }

    const PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }
    const char* getPluginName() const noexcept override { return OPERATOR.name; }
    const char* getPluginVersion() const noexcept override { return VERSION; }
    const char* getPluginNamespace() const noexcept override { return NAMESPACE; }

private:
    static bool read(const PluginField& field, Attributes& attributes) {
        for (int i = 0; i < attribute_count(); ++i) {
            if (std::strcmp(field.name, OPERATOR.attributes[i]) != 0) continue;
            const bool fits = field.type == PluginFieldType::kINT32 && field.length >= 0 &&
                              field.length <= MOST_VALUES && (field.data || field.length == 0);
            if (is_refused(fits ? nullptr : "an attribute is no list of at most 8 whole numbers"))
                return false;
            attributes.list[i].count = field.length;
            if (field.length)
                std::memcpy(attributes.list[i].values, field.data, sizeof(int32_t) * field.length);
        }
        return true;  // other fields are the parser's own
    }

    PluginField fields_[MOST_ATTRIBUTES];
    PluginFieldCollection collection_{};
};

}  // namespace

void log_error(const char* said, const char* more) {
    char message[512];
    std::snprintf(message, sizeof message, "%s::%s: %s%s", NAMESPACE, OPERATOR.name, said, more);
    if (ILogger* logger = logger_finder ? logger_finder->findLogger() : nullptr)
        logger->log(ILogger::Severity::kERROR, message);
    else
        std::fprintf(stderr, "%s\n", message);
}

}  // namespace irstd::tensorrt

// What TensorRT asks a library of plugins for.
extern "C" __attribute__((visibility("default"))) void setLoggerFinder(
    nvinfer1::ILoggerFinder* finder) {
    irstd::tensorrt::logger_finder = finder;
}

extern "C" __attribute__((visibility("default"))) nvinfer1::IPluginCreatorInterface* const*
getCreators(int32_t& count) {
    static irstd::tensorrt::Creator creator;
    static nvinfer1::IPluginCreatorInterface* const creators[] = {&creator};
    count = 1;
    return creators;
}
