// The launch geometry of the Haar gate, for Python.
#include "haar_gate_launch.hpp"

#include "../portable.hpp"

// A launch of irstd_haar_gate_f32 (4 bytes an element) or _f16 (2), and its argument segment_rows.
IRSTD_EXPORT void irstd_haar_gate_launch(int images, int height, int width, int element_bytes,
                                         int multiprocessors, irstd::Launch* launch,
                                         int* segment_rows) {
    namespace gate = irstd::haar_gate;
    const gate::Plan plan = element_bytes == 2
                                ? gate::plan<2>(images, height, width, multiprocessors)
                                : gate::plan<4>(images, height, width, multiprocessors);
    *launch = plan.launch;
    *segment_rows = plan.segment_rows;
}
