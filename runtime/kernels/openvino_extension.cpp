// The operators of this package as an extension library of OpenVINO, for graphs whose nodes are of
// the domain "irstd".
#include "openvino/core/extension.hpp"
#include "openvino/frontend/onnx/extension/op.hpp"

#include "haar_gate/haar_gate_openvino.hpp"
#include "ms_deform_attn/ms_deform_attn_openvino.hpp"
#include "spectral_split/spectral_split_openvino.hpp"

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
