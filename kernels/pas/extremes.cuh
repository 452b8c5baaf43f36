// The smallest and the largest of floats on the GPU.
#pragma once
#include <cstdint>

#include "cuda/scan.cuh"
#include "pas/pas_args.h"

namespace lidcam::pas::cuda {

// Order of keys = order of floats; both zeros have one key.
__device__ inline uint32_t key_of(float v) {
  const uint32_t bits = __float_as_uint(v + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ inline float float_of(uint32_t key) { return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key); }

struct Extremes {
  float low = __builtin_huge_valf(), high = -__builtin_huge_valf();

  __device__ void take(const float* v) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      low = fminf(low, v[c]);
      high = fmaxf(high, v[c]);
    }
  }
  // Those of the block, all of whose threads call it, with a word per warp in each array.
  __device__ void over_block(uint32_t* lows, uint32_t* highs) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    const uint32_t low_key = lidcam::cuda::warp_max(~key_of(low)), high_key = lidcam::cuda::warp_max(key_of(high));
    if (lane == 0) {
      lows[warp] = low_key;
      highs[warp] = high_key;
    }
    __syncthreads();
    low = float_of(~lidcam::cuda::warp_max(lows[lane < warps ? lane : 0]));
    high = float_of(lidcam::cuda::warp_max(highs[lane < warps ? lane : 0]));
  }
};

}  // namespace lidcam::pas::cuda
