// Pictures and maps on device memory. Pointers are device pointers; each call enqueues its work on the stream and
// returns.
#pragma once
#include <cstdint>

#include "cuda/driver.h"

namespace lidcam::cuda {

// Pillow's resampling of uint8 [height, width, 3] along one axis to `size` places: bounds int32 [size, 2] (the first
// source of each and how many), weights int32 [size, taps] in 1 / 2^22. Throws as launch_pas does.
void launch_resample(Stream stream, const uint8_t* from, int height, int width, bool along_x, const int32_t* bounds,
                     const int32_t* weights, int taps, int size, uint8_t* to);

// Unary energies float32 [count, 2, pixels] of maps uint8 [count, pixels] whose masks are above threshold float32
// [count], from a table float32 [255, 2, 256] by level, label and value. found int32 [count]: bit 0 where a pixel is
// above, bit 1 where one is not.
void launch_energies(Stream stream, const uint8_t* map, const float* threshold, const float* table, int64_t count,
                     int pixels, float* unary, int32_t* found);

// round(255 q1) of q float32 [count, 2, pixels] as uint8 [count, pixels]; 0 or 255 where `found` says that the mask was
// empty or full.
void launch_refined(Stream stream, const float* q, const int32_t* found, int64_t count, int pixels, uint8_t* map);

}  // namespace lidcam::cuda
