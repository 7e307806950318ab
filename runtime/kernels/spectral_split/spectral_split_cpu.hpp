// What the spectral split exports on a CPU. Both functions work on one image, keep no state, may run
// on several threads at once for different channels or rows, and return a Status (status.hpp).
#pragma once

#include "../portable.hpp"

// The low band of channels [begin, end) of x (channels, height, width): `low` has the shape of x,
// cutoff (channels) in cycles per pixel, above 0. NOT_FINITE if a cutoff is not; what is not finite
// in x is not in `low` either, and is told by who reads that.
IRSTD_EXPORT int irstd_spectral_split_low_f32(const float* x, const float* cutoff, float* low,
                                              int height, int width, int begin, int end);

// Rows [begin, end) of the result, out of x and the low band of all its channels: gate_weight
// (2, 2, 7, 7) and gate_bias (2) for the low and the high band, on mean and maximum over the channels;
// gamma (2, channels). NOT_FINITE if the part of x or low that they depend on is not, or a sum of it,
// or one of the other arrays.
IRSTD_EXPORT int irstd_spectral_split_gate_f32(const float* x, const float* low,
                                               const float* gate_weight, const float* gate_bias,
                                               const float* gamma, float* out, int channels,
                                               int height, int width, int begin, int end);
