// Launch geometry of the Haar gate.
#pragma once

#include "../strips.hpp"
#include "haar_gate.hpp"

namespace irstd::haar_gate {

// The gates of the four bands are summed: only the first has room for them.
template <int ElementBytes>
struct Layout : strips::Layout<ElementBytes, BANDS> {
    using Base = strips::Layout<ElementBytes, BANDS>;
    static constexpr int MEANS =
        Base::GATES + Base::GATE;  // a ring of means of x over the channels
    static constexpr int FLOATS = MEANS + strips::RING_ROWS * Base::ROW_PX;
};

using strips::Plan;

template <int ElementBytes>
Plan plan(int images, int height, int width, int multiprocessors) {
    return strips::plan<ElementBytes>(images, height, width, multiprocessors,
                                      Layout<ElementBytes>::FLOATS);
}

}  // namespace irstd::haar_gate
