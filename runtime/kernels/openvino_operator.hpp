// What the operators of the OpenVINO extension share: checks of their inputs, threads, errors.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "openvino/core/parallel.hpp"
#include "openvino/op/op.hpp"
#include "pixels.hpp"
#include "status.hpp"

namespace irstd::openvino {

// Every message of ours is one line that begins with "irstd.", by which the session finds it among
// what OpenVINO adds.
#define IRSTD_CHECK(node, condition, ...) \
    NODE_VALIDATION_CHECK(node, condition, "irstd.", (node)->get_type_name(), ": ", __VA_ARGS__)

// Refuses a graph whose node has an input of another type or shape; -1 is any size but 0.
inline void check_input(const ov::Node& node, size_t index, const ov::PartialShape& wanted) {
    const ov::element::Type type = node.get_input_element_type(index);
    const ov::PartialShape& shape = node.get_input_partial_shape(index);
    IRSTD_CHECK(&node, type.is_dynamic() || type == ov::element::f32, "input ", index, " is ", type,
                "; wanted f32");
    const bool is_empty = shape.is_static() && ov::shape_size(shape.to_shape()) == 0;
    IRSTD_CHECK(&node, shape.compatible(wanted) && !is_empty, "input ", index, " is ", shape,
                "; wanted ", wanted);
}

// Refuses maps (N, C, H, W) whose pixels have no room in the kernels' numbers.
inline void check_maps(const ov::Node& node, size_t index) {
    const ov::PartialShape& shape = node.get_input_partial_shape(index);
    const bool is_known = shape.size() == 4 && shape[2].is_static() && shape[3].is_static();
    IRSTD_CHECK(&node, !is_known || shape[2].get_length() * shape[3].get_length() <= MOST_OF_MAP,
                "input ", index, " is ", shape, "; wanted at most ", MOST_OF_MAP, " px in a map");
}

// The size of an axis where it is known, else any.
inline ov::Dimension side(const ov::Node& node, size_t index, size_t axis) {
    const ov::PartialShape& shape = node.get_input_partial_shape(index);
    return shape.rank().is_static() && axis < shape.size() ? shape[axis] : ov::Dimension::dynamic();
}

// Shares `count` items out to the threads that OpenVINO gives this inference: `task` takes the
// first item and the one after the last, and returns a Status. Returns the worst.
template <typename Task>
int run_in_parallel(int64_t count, const Task& task) {
    std::atomic<int> worst{DONE};
    const int64_t most = std::max(parallel_get_max_threads(), 1);
    ov::parallel_nt(static_cast<int>(std::min(most, count)), [&](int part, int parts) {
        const int status = task(count * part / parts, count * (part + 1) / parts);
        int before = worst;
        while (before < status && !worst.compare_exchange_weak(before, status)) continue;
    });
    return worst;
}

// Remembers that a node could not compute, until the session that its name tells takes it.
void record_fault(const ov::Node& node, const char* finding) noexcept;

// Computes a node. No exception leaves it: OpenVINO loses what is thrown on its single-threaded
// path, and crashes in a later inference.
template <typename Compute>
bool evaluate_node(const ov::Node& node, const Compute& compute) noexcept {
    try {
        const int status = compute();
        if (status == NOT_FINITE)
            record_fault(node, "an input holds NaN or infinity; wanted finite numbers");
        if (status == NO_MEMORY) record_fault(node, "out of memory");
    } catch (const std::bad_alloc&) {
        record_fault(node, "out of memory");
    } catch (const std::exception& error) {
        record_fault(node, error.what());
    }
    return true;
}

}  // namespace irstd::openvino
