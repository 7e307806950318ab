// The Haar gate as an operator of OpenVINO.
#pragma once

#include "../openvino_operator.hpp"
#include "haar_gate.hpp"
#include "haar_gate_cpu.hpp"

namespace irstd::openvino {

class HaarGate : public ov::op::Op {
public:
    OPENVINO_OP("HaarGate", "irstd");

    HaarGate() = default;
    explicit HaarGate(const ov::OutputVector& inputs) : Op(inputs) {
        constructor_validate_and_infer_types();
    }

    void validate_and_infer_types() override {
        using namespace haar_gate;
        IRSTD_CHECK(this, get_input_size() == 3, get_input_size(), " inputs; wanted 3");
        check_input(*this, 0, {-1, -1, -1, -1});
        check_maps(*this, 0);
        check_input(*this, 1, {BANDS, POOLS, KERNEL_PX, KERNEL_PX});
        check_input(*this, 2, {BANDS});
        set_output_type(0, ov::element::f32, get_input_partial_shape(0));
    }

    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override {
        return std::make_shared<HaarGate>(inputs);
    }

    bool visit_attributes(ov::AttributeVisitor&) override { return true; }

    bool has_evaluate() const override { return true; }

    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override {
        return evaluate_node(*this, [&] {
            const ov::Shape shape = inputs[0].get_shape();
            outputs[0].set_shape(shape);
            const auto side = [&shape](size_t axis) { return static_cast<int>(shape[axis]); };
            return run_in_parallel(side(2), [&](int64_t begin, int64_t end) {
                return irstd_haar_gate_f32(inputs[0].data<float>(), inputs[1].data<float>(),
                                           inputs[2].data<float>(), outputs[0].data<float>(),
                                           side(0), side(1), side(2), side(3),
                                           static_cast<int>(begin), static_cast<int>(end));
            });
        });
    }
};

}  // namespace irstd::openvino
