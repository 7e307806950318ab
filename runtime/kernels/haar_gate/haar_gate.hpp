// The arithmetic of the Haar gate that host and device share (models.md 1.8, FreqAttn).
#pragma once

#include "../portable.hpp"

namespace irstd::haar_gate {

constexpr int BANDS = 4;      // LH, HL, HH, LL: vertical filter first
constexpr int KERNEL_PX = 7;  // of the gates
constexpr int REACH_PX = KERNEL_PX / 2;
constexpr int POOLS = 2;  // maximum and mean over the channels
constexpr int WEIGHTS = BANDS * POOLS * KERNEL_PX * KERNEL_PX;

// Twice each band at a pixel from its 2x2 neighbourhood above and to the left. The half is applied
// after the reduction over the channels, which it commutes with. A value is a float or several.
template <class Value>
struct Doubled {
    Value lh, hl, hh, ll;
};

template <class Value>
IRSTD_HD Doubled<Value> doubled_bands(Value above_left, Value above, Value left, Value here) {
    const Value sum_above = above_left + above, difference_above = above_left - above;
    const Value sum_here = left + here, difference_here = left - here;
    return {sum_above - sum_here, difference_above + difference_here,
            difference_above - difference_here, sum_above + sum_here};
}

}  // namespace irstd::haar_gate
