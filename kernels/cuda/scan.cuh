// Prefix sums over the threads of a warp.
#pragma once
#include <cstdint>

namespace lidcam::cuda {

// The sum of `own` over the lanes up to and with this one. All 32 lanes call it.
__device__ inline uint32_t warp_inclusive_sum(uint32_t own) {
  const int lane = threadIdx.x % 32;
  for (int d = 1; d < 32; d *= 2) {
    const uint32_t other = __shfl_up_sync(0xffffffffu, own, d);
    if (lane >= d) own += other;
  }
  return own;
}

}  // namespace lidcam::cuda
