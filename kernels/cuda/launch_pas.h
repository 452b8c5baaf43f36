// PaS on device memory. Pointers are device pointers; each call enqueues its work on the stream and returns.
#pragma once
#include <cstdint>
#include <string>

#include "cuda/driver.h"
#include "pas/options.h"

namespace lidcam::cuda {

// `count` maps float32 [count, h, w] -> map uint8 [count, height, width], mask uint8 (0 or 1) of the same shape,
// threshold float32 [count]. The same bits as lidcam::pas::pas_batch. One launch, no workspace.
// Throws Error; std::invalid_argument for a size out of range (sides 1 to 32768).
void launch_pas(Stream stream, const float* cam, int64_t count, int h, int w, int height, int width,
                const pas::PasOptions& options, uint8_t* map, uint8_t* mask, float* threshold);

// The same with map and mask as float32 (0..255, 0 or 1), for engines whose plugins have no byte outputs: the kernel
// lidcam_pas_aot of kernels/pas/pas_aot.cu.
void launch_pas_words(Stream stream, const float* cam, int64_t count, int h, int w, int height, int width,
                      const pas::PasOptions& options, float* map, float* mask, float* threshold);

// PTX of lidcam_pas_aot (kernels/pas/pas_aot.cu lists its arguments) for a device of this major compute capability,
// and how many blocks share a map: grid = count * blocks_per_map. Empty when compiled() is false.
struct AheadOfTime {
  std::string ptx;
  int blocks_per_map = 1;
};
AheadOfTime pas_ahead_of_time(int major);

}  // namespace lidcam::cuda
