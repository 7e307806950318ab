// The operators of this package as an extension library of OpenVINO, for graphs whose nodes are of
// the domain "irstd".
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#include "openvino/core/extension.hpp"
#include "openvino/frontend/onnx/extension/op.hpp"

#include "haar_gate/haar_gate_openvino.hpp"
#include "ms_deform_attn/ms_deform_attn_openvino.hpp"
#include "spectral_split/spectral_split_openvino.hpp"

namespace irstd::openvino {
namespace {

struct Fault {
    std::string node, finding;
};

std::mutex mutex;
std::vector<Fault> faults;
std::atomic<bool> has_faults{false};

}  // namespace

void record_fault(const ov::Node& node, const char* finding) noexcept try {
    const std::lock_guard<std::mutex> lock(mutex);
    const std::string type = node.get_type_name();
    faults.push_back({node.get_friendly_name(), type + ": " + finding});
    has_faults = true;
} catch (...) {  // no memory to say so
}

}  // namespace irstd::openvino

// Writes what nodes whose names begin with `prefix` could not compute since the last call, the first
// of them, into `text` of `size` bytes, and forgets them. Returns the length, 0 if all is well.
IRSTD_EXPORT int irstd_openvino_take_fault(const char* prefix, char* text, int size) {
    using namespace irstd::openvino;
    if (!has_faults) return 0;
    const std::lock_guard<std::mutex> lock(mutex);
    const size_t length = std::strlen(prefix);
    int written = 0;
    const auto is_taken = [&](const Fault& fault) {
        if (fault.node.compare(0, length, prefix) != 0) return false;
        if (written == 0)
            written = std::snprintf(text, static_cast<size_t>(size), "irstd.%s, node %s",
                                    fault.finding.c_str(), fault.node.c_str() + length);
        return true;
    };
    faults.erase(std::remove_if(faults.begin(), faults.end(), is_taken), faults.end());
    has_faults = !faults.empty();
    return std::min(written, size - 1);
}

namespace {

template <typename Operator>
std::shared_ptr<ov::Extension> of_domain() {
    const char* name = Operator::get_type_info_static().name;
    return std::make_shared<ov::frontend::onnx::OpExtension<Operator>>(name, "irstd");
}

}  // namespace

OPENVINO_CREATE_EXTENSIONS(std::vector<ov::Extension::Ptr>({
    of_domain<irstd::openvino::HaarGate>(),
    of_domain<irstd::openvino::MSDeformAttn>(),
    of_domain<irstd::openvino::SpectralSplit>(),
}));
