// Multi-scale deformable attention as an operator of OpenVINO.
#pragma once

#include <vector>

#include "../openvino_operator.hpp"
#include "ms_deform_attn_cpu.hpp"

namespace irstd::openvino {

class MSDeformAttn : public ov::op::Op {
public:
    OPENVINO_OP("MSDeformAttn", "irstd");

    MSDeformAttn() = default;
    MSDeformAttn(const ov::OutputVector& inputs, std::vector<int64_t> level_hw,
                 std::vector<int64_t> query_hw)
        : Op(inputs), level_hw_(std::move(level_hw)), query_hw_(std::move(query_hw)) {
        constructor_validate_and_infer_types();
    }

    void validate_and_infer_types() override {
        using namespace ms_deform_attn;
        const size_t inputs = get_input_size(), sides = level_hw_.size();
        IRSTD_CHECK(this, sides >= 2 && sides <= 2 * MAX_LEVELS && sides % 2 == 0,
                              "level_hw has ", sides, " numbers; wanted H and W of 1 to ",
                              MAX_LEVELS, " levels");
        IRSTD_CHECK(this, inputs == 4 || (inputs == 3 && query_hw_.size() == 2),
                              "wanted query_hw with H and W, or reference points");
        const auto is_side = [](int64_t side) { return side > 0 && side <= MAX_SIDE_PX; };
        IRSTD_CHECK(this, std::all_of(level_hw_.begin(), level_hw_.end(), is_side) &&
                              std::all_of(query_hw_.begin(), query_hw_.end(), is_side),
                    "level_hw and query_hw must be 1 to ", MAX_SIDE_PX, " px");
        int64_t positions = 0;
        for (size_t i = 0; i < sides; i += 2) {
            const int64_t height = level_hw_[i], width = level_hw_[i + 1];
            positions += height * width;
            IRSTD_CHECK(this, (height + 2) * (width + 2) <= MOST_OF_LEVEL, "a level is ", height, " x ",
                        width, " px; wanted at most ", MOST_OF_LEVEL, " px");
        }
        const auto images = side(*this, 0, 0), heads = side(*this, 0, 2), d_head = side(*this, 0, 3);
        const auto points = side(*this, 2, 4);
        ov::Dimension queries = side(*this, 2, 1);
        if (inputs == 3) queries = query_hw_[0] * query_hw_[1];
        const auto levels = static_cast<int64_t>(sides / 2);
        check_input(*this, 0, {images, positions, heads, d_head});
        check_input(*this, 1, {images, queries, heads, levels, points, 2});
        check_input(*this, 2, {images, queries, heads, levels, points});
        if (inputs == 4) check_input(*this, 3, {images, queries, 2});
        IRSTD_CHECK(this, points.is_dynamic() || points.get_length() <= MAX_POINTS,
                              points, " points; wanted at most ", MAX_POINTS);
        IRSTD_CHECK(this, d_head.is_dynamic() || d_head.get_length() * positions <= MOST_OF_HEAD,
                    positions, " x ", d_head, " numbers in a head; wanted at most ", MOST_OF_HEAD);
        IRSTD_CHECK(this, d_head.is_dynamic() || has_kernel(d_head.get_length()),
                              "d_head ", d_head, "; wanted 1, 8, 16 or 32");
        set_output_type(0, ov::element::f32, ov::PartialShape{images, queries, heads * d_head});
    }

    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override {
        return std::make_shared<MSDeformAttn>(inputs, level_hw_, query_hw_);
    }

    bool visit_attributes(ov::AttributeVisitor& visitor) override {
        visitor.on_attribute("level_hw", level_hw_);
        // With reference points it is empty or absent, which the ONNX reader takes for an error.
        if (get_input_size() < 4) visitor.on_attribute("query_hw", query_hw_);
        return true;
    }

    bool has_evaluate() const override { return true; }

    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override {
        return evaluate_node(*this, [&] { return compute(outputs, inputs); });
    }

private:
    int compute(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
        const ov::Shape value = inputs[0].get_shape(), logits = inputs[2].get_shape();
        outputs[0].set_shape({logits[0], logits[1], value[2] * value[3]});
        const auto narrow = [](auto size) { return static_cast<int32_t>(size); };
        irstd_ms_deform_attn_shape shape{};
        shape.images = narrow(logits[0]), shape.queries = narrow(logits[1]);
        shape.heads = narrow(logits[2]), shape.d_head = narrow(value[3]);
        shape.levels = narrow(logits[3]), shape.points = narrow(logits[4]);
        std::transform(query_hw_.begin(), query_hw_.end(), shape.query_hw, narrow);
        std::transform(level_hw_.begin(), level_hw_.end(), shape.level_hw, narrow);
        const float* reference = inputs.size() == 4 ? inputs[3].data<float>() : nullptr;
        const int64_t items = int64_t{shape.images} * shape.heads * shape.queries;
        return run_in_parallel(items, [&](int64_t begin, int64_t end) {
            return irstd_ms_deform_attn_f32(&shape, inputs[0].data<float>(),
                                            inputs[1].data<float>(), inputs[2].data<float>(),
                                            reference, outputs[0].data<float>(), begin, end);
        });
    }

    static constexpr int64_t MAX_SIDE_PX = 16384;  // as in a bundle

    static bool has_kernel(int64_t d_head) {
        return d_head == 1 || d_head == 8 || d_head == 16 || d_head == 32;
    }

    std::vector<int64_t> level_hw_, query_hw_;
};

}  // namespace irstd::openvino
