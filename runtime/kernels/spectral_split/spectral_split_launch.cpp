// The launch geometry of the spectral split, for Python.
#include "spectral_split_launch.hpp"

// Launches of the kernels of an element size: _whole, or _rows, _columns and _rows_back, then
// _gate, and its argument segment_rows. Returns how many there are.
IRSTD_EXPORT int irstd_spectral_split_launch(int images, int channels, int height, int width,
                                             int element_bytes, int multiprocessors,
                                             irstd::Launch* launches, int* segment_rows) {
    namespace split = irstd::spectral_split;
    const split::Plan plan = element_bytes == 2
                                 ? split::plan<2>(images, channels, height, width, multiprocessors)
                                 : split::plan<4>(images, channels, height, width, multiprocessors);
    irstd::Launch* next = launches;
    if (plan.is_whole) {
        *next++ = plan.whole;
    } else {
        *next++ = plan.rows;
        *next++ = plan.columns;
        *next++ = plan.rows_back;
    }
    *next++ = plan.gate.launch;
    *segment_rows = plan.gate.segment_rows;
    return static_cast<int>(next - launches);
}

// The same for who launches one kernel at a time: _whole, _rows and _rows_back, _columns, _gate,
// each where it can be launched at all.
IRSTD_EXPORT void irstd_spectral_split_launches(int images, int channels, int height, int width,
                                                int element_bytes, int multiprocessors,
                                                irstd::Launch* launches, int* segment_rows) {
    namespace split = irstd::spectral_split;
    const split::Plan plan = element_bytes == 2
                                 ? split::plan<2>(images, channels, height, width, multiprocessors)
                                 : split::plan<4>(images, channels, height, width, multiprocessors);
    launches[0] = plan.whole;
    launches[1] = plan.rows;
    launches[2] = plan.columns;
    launches[3] = plan.gate.launch;
    *segment_rows = plan.gate.segment_rows;
}
