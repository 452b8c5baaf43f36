// Prefix sums over the threads of a warp.
#pragma once
#include <cstdint>

namespace lidcam::cuda {

// The sum of `mine` over the lanes up to and including this one. All 32 lanes call it.
__device__ inline uint32_t warp_inclusive_sum(uint32_t mine) {
  const int lane = threadIdx.x % 32;
  for (int d = 1; d < 32; d *= 2) {
    const uint32_t other = __shfl_up_sync(0xffffffffu, mine, d);
    if (lane >= d) mine += other;
  }
  return mine;
}

}  // namespace lidcam::cuda
