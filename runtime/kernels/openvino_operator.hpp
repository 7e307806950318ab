// What the operators of the OpenVINO extension share: checks of their inputs, threads, errors.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "openvino/core/parallel.hpp"
#include "openvino/op/op.hpp"

namespace irstd::openvino {

// Every message of ours is one line that begins with "irstd.", by which the session finds it among
// what OpenVINO adds.
#define IRSTD_CHECK(node, condition, ...) \
    NODE_VALIDATION_CHECK(node, condition, "irstd.", (node)->get_type_name(), ": ", __VA_ARGS__)

// Refuses a graph whose node has an input of another type or shape; -1 is any size.
inline void check_input(const ov::Node& node, size_t index, const ov::PartialShape& wanted) {
    const ov::element::Type type = node.get_input_element_type(index);
    const ov::PartialShape& shape = node.get_input_partial_shape(index);
    IRSTD_CHECK(&node, type.is_dynamic() || type == ov::element::f32, "input ", index, " is ", type,
                "; wanted f32");
    IRSTD_CHECK(&node, shape.compatible(wanted), "input ", index, " is ", shape, "; wanted ",
                wanted);
}

// The size of an axis where it is known, else any.
inline ov::Dimension side(const ov::Node& node, size_t index, size_t axis) {
    const ov::PartialShape& shape = node.get_input_partial_shape(index);
    return shape.rank().is_static() && axis < shape.size() ? shape[axis] : ov::Dimension::dynamic();
}

// Shares `count` items out to the threads that OpenVINO gives this inference: `task` takes the
// first item and the one after the last, and returns 0, or 1 if what it read is not finite.
template <typename Task>
int run_in_parallel(int64_t count, const Task& task) {
    std::atomic<int> status{0};
    const int64_t most = std::max(parallel_get_max_threads(), 1);
    ov::parallel_nt(static_cast<int>(std::min(most, count)), [&](int part, int parts) {
        if (task(count * part / parts, count * (part + 1) / parts) != 0) status = 1;
    });
    return status;
}

// Remembers that a node could not compute, until the session that its name tells takes it.
void record_fault(const ov::Node& node, const char* finding) noexcept;

// Computes a node. No exception leaves it: OpenVINO loses what is thrown on its single-threaded
// path, and crashes in a later inference.
template <typename Compute>
bool evaluate_node(const ov::Node& node, const Compute& compute) noexcept {
    try {
        if (compute() != 0)
            record_fault(node, "an input holds NaN or infinity; wanted finite numbers");
    } catch (const std::exception& error) {
        record_fault(node, error.what());
    }
    return true;
}

}  // namespace irstd::openvino
