// The spectral split as an operator of OpenVINO.
#pragma once

#include <memory>

#include "../openvino_operator.hpp"
#include "spectral_split_cpu.hpp"

namespace irstd::openvino {

class SpectralSplit : public ov::op::Op {
public:
    OPENVINO_OP("SpectralSplit", "irstd");

    SpectralSplit() = default;
    explicit SpectralSplit(const ov::OutputVector& inputs) : Op(inputs) {
        constructor_validate_and_infer_types();
    }

    void validate_and_infer_types() override {
        IRSTD_CHECK(this, get_input_size() == 5, get_input_size(), " inputs; wanted 5");
        const ov::Dimension channels = side(*this, 0, 1);
        check_input(*this, 0, {-1, channels, -1, -1});
        check_maps(*this, 0);
        check_input(*this, 1, {channels});
        check_input(*this, 2, {2, 2, 7, 7});
        check_input(*this, 3, {2});
        check_input(*this, 4, {2, channels});
        set_output_type(0, ov::element::f32, get_input_partial_shape(0));
    }

    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override {
        return std::make_shared<SpectralSplit>(inputs);
    }

    bool visit_attributes(ov::AttributeVisitor&) override { return true; }

    bool has_evaluate() const override { return true; }

    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override {
        return evaluate_node(*this, [&] { return compute(outputs, inputs); });
    }

private:
    static int compute(ov::TensorVector& outputs, const ov::TensorVector& inputs) {
        const ov::Shape shape = inputs[0].get_shape();
        outputs[0].set_shape(shape);
        const int channels = static_cast<int>(shape[1]), height = static_cast<int>(shape[2]);
        const int width = static_cast<int>(shape[3]);
        const size_t size = shape[1] * shape[2] * shape[3];
        const std::unique_ptr<float[]> band(new float[size]);
        float* low = band.get();
        for (size_t image = 0; image < shape[0]; ++image) {
            const float* x = inputs[0].data<float>() + image * size;
            float* out = outputs[0].data<float>() + image * size;
            int status = run_in_parallel(channels, [&](int64_t begin, int64_t end) {
                return irstd_spectral_split_low_f32(x, inputs[1].data<float>(), low, height, width,
                                                    static_cast<int>(begin), static_cast<int>(end));
            });
            if (status != DONE) return status;
            status = run_in_parallel(height, [&](int64_t begin, int64_t end) {
                return irstd_spectral_split_gate_f32(
                    x, low, inputs[2].data<float>(), inputs[3].data<float>(),
                    inputs[4].data<float>(), out, channels, height, width, static_cast<int>(begin),
                    static_cast<int>(end));
            });
            if (status != DONE) return status;
        }
        return DONE;
    }
};

}  // namespace irstd::openvino
