// What the CPU library exports of the Haar gate.
#pragma once

#include "../portable.hpp"

// Rows [begin, end) of the result for all images: x and out (images, channels, height, width)
// float32, weight (4, 2, 7, 7), bias (4). Different rows may be computed by different threads.
// Returns a Status (status.hpp): NOT_FINITE if the part of x that they depend on is not, or a sum of
// it, or weight or bias.
IRSTD_EXPORT int irstd_haar_gate_f32(const float* x, const float* weight, const float* bias,
                                     float* out, int images, int channels, int height, int width,
                                     int begin, int end);
