// Sums and extremes over the threads of a warp. All 32 lanes call these.
#pragma once
#include <cstdint>

namespace lidcam::cuda {

// The sum of `mine` over the lanes up to and including this one.
__device__ inline uint32_t warp_inclusive_sum(uint32_t mine) {
  const int lane = threadIdx.x % 32;
  for (int d = 1; d < 32; d *= 2) {
    const uint32_t other = __shfl_up_sync(0xffffffffu, mine, d);
    if (lane >= d) mine += other;
  }
  return mine;
}

__device__ inline uint32_t warp_sum(uint32_t mine) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  return __reduce_add_sync(0xffffffffu, mine);
#else
  for (int d = 16; d; d /= 2) mine += __shfl_xor_sync(0xffffffffu, mine, d);
  return mine;
#endif
}

__device__ inline uint32_t warp_or(uint32_t mine) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  return __reduce_or_sync(0xffffffffu, mine);
#else
  for (int d = 16; d; d /= 2) mine |= __shfl_xor_sync(0xffffffffu, mine, d);
  return mine;
#endif
}

__device__ inline uint32_t warp_max(uint32_t mine) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  return __reduce_max_sync(0xffffffffu, mine);
#else
  for (int d = 16; d; d /= 2) {
    const uint32_t other = __shfl_xor_sync(0xffffffffu, mine, d);
    mine = other > mine ? other : mine;
  }
  return mine;
#endif
}

}  // namespace lidcam::cuda
