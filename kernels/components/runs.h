// What a launch of the CUDA kernels of components needs to know; read by nvcc and by the host's compiler.
#pragma once
#include <cstdint>

namespace lidcam::components::cuda {

constexpr int kBytesPerRun = 24;
constexpr int kThreads = 512, kSharedBytes = 49152;

// Bytes that the runs of a mask may need: every second pixel a run.
constexpr int64_t run_bytes(int64_t height, int64_t width) {
  return 4 * (height + 1) + kBytesPerRun * (height * ((width + 1) / 2) + 1);
}
// With the weights of a resize before them.
constexpr int64_t resized_run_bytes(int64_t height, int64_t width) {
  return (8 * (height + width) + run_bytes(height, width) + 7) / 8 * 8;
}

}  // namespace lidcam::components::cuda
