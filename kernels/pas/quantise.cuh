// Values as bytes on the GPU.
#pragma once
#include <cstdint>

#include "pas/pas_args.h"

namespace lidcam::pas::cuda {

__device__ inline bool finite(float v) { return fabsf(v) <= 3.402823466e38f; }

__device__ inline uint32_t pack(const uint32_t* v) { return v[0] | v[1] << 8 | v[2] << 16 | v[3] << 24; }

// Bytes above a level, four at once.
struct Level {
  uint32_t added, keep, set;  // per byte: the high bit of (low bits + added) & or | the byte's own high bit

  __device__ explicit Level(int level)
      : added(0x01010101u * uint32_t(level < 128 ? 127 - max(level, 0) : 255 - min(level, 255))),
        keep(level < 128 ? 0u : 0xffffffffu),
        set(level < 0 ? 0xffffffffu : 0u) {}
  // 1 in every byte that is above the level.
  __device__ uint32_t above(uint32_t bytes) const {
    const uint32_t sum = (bytes & 0x7f7f7f7fu) + added;
    return (((keep & sum & bytes) | (~keep & (sum | bytes)) | set) >> 7) & 0x01010101u;
  }
};

// A call, not inlined: it is rare.
static __device__ __noinline__ uint32_t divided(float a, float b, float c, float d, float range) {
  const float v[kColumns] = {a, b, c, d};
  uint32_t packed = 0;
#pragma unroll 1
  for (int i = kColumns - 1; i >= 0; --i)
    packed = packed << 8 | uint32_t(int(((i < 2 ? i ? v[1] : v[0] : i < 3 ? v[2] : v[3]) / range) * 255.0f));
  return packed;
}

// Bytes of a value v of the resized map: ((v - low) / range) * 255, truncated. A byte from these two roundings lies
// between those of factors 2^-21 below and above 255 / range; where a little wider ones give the same, it is theirs,
// and else the division decides.
struct Quantiser {
  float low, range, under, over;
  bool divides;  // a range that leaves no room for factors

  __device__ Quantiser(float from, float span) : low(from), range(span), divides(!(span > 1e-30f && span < 1e30f)) {
    const float factor = 255.0f / span;
    under = factor * (1.0f - 0x1p-20f);
    over = factor * (1.0f + 0x1p-20f);
  }
  __device__ uint32_t four(const float* v) const {
    constexpr float kWhole = 8388608.0f;  // a sum with it, rounded towards zero, holds the truncated value in its bits
    uint32_t bytes[kColumns], differ = 0;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const float d = v[c] - low;
      const uint32_t a = __float_as_uint(__fadd_rz(d * under, kWhole)),
                     b = __float_as_uint(__fadd_rz(d * over, kWhole));
      bytes[c] = a & 255;
      differ |= a ^ b;
    }
    uint32_t packed = bytes[0] | bytes[1] << 8 | bytes[2] << 16 | bytes[3] << 24;
    return differ || divides ? divided(v[0] - low, v[1] - low, v[2] - low, v[3] - low, range) : packed;
  }
};

}  // namespace lidcam::pas::cuda
