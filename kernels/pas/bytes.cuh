// The default PaS on the GPU: the percentile of the resized map's bytes, which stay in shared memory from the histogram
// to the mask.
#pragma once
#include <cstdint>

#include "pas/extremes.cuh"
#include "pas/percentile.cuh"
#include "pas/quantise.cuh"
#include "pas/resize.cuh"

namespace lidcam::pas::cuda {

struct alignas(16) Words {
  uint32_t v[4];
};

// The two bytes that the percentile lies between, into s->bin, and the bytes of rows [begin, end) into `bytes`. Bins
// are 0 on entry. When it returns, other blocks may still read this one's memory.
template <class Team, class Values>
__device__ void percentile_of_bytes(const Team& team, const Geometry& geometry, const Values& values,
                                    const Quantiser& quantiser, uint32_t* bytes, Scratch* s) {
  constexpr uint32_t kBin = kCopies * sizeof(uint32_t), kMask = 255 * kBin;  // bytes of a bin, and where it begins
  static_assert(kBin == 32);
  const int stride = values.resizer.across.n_out / kColumns;
  unsigned char* const mine = reinterpret_cast<unsigned char*>(s->bins + threadIdx.x % kCopies);
  const auto count = [&](uint32_t at) { atomicAdd(reinterpret_cast<uint32_t*>(mine + (at & kMask)), 1u); };
  values.each([&](int y, int x, int, const float* v) {
    const uint32_t four = quantiser.four(v);
    bytes[(y - values.first) * stride + x / kColumns] = four;
    count(four << 5);
    count(four >> 3);
    count(four >> 11);
    count(four >> 19);
  });
  sum_copies(s);
  team.sync();
  locate(s, 256, geometry.rank.low, geometry.rank.next, [&](int b) { return sum_over<8>(team, s->counts, b); });
}

// Bytes (zeros where there are none) as the map, and those above a level as the mask.
__device__ inline void put(const uint32_t* bytes, int64_t count, const Level& level, uint8_t* map, uint8_t* mask) {
  int64_t done = 0;
  if ((reinterpret_cast<uintptr_t>(map) | reinterpret_cast<uintptr_t>(mask)) % sizeof(Words) == 0) {
    for (int64_t i = threadIdx.x; i < count / 4; i += blockDim.x) {
      Words v{};
      if (bytes) v = reinterpret_cast<const Words*>(bytes)[i];
      reinterpret_cast<Words*>(map)[i] = v;
#pragma unroll
      for (uint32_t& four : v.v) four = level.above(four);
      reinterpret_cast<Words*>(mask)[i] = v;
    }
    done = count / 4 * 4;
  }
  for (int64_t i = done + threadIdx.x; i < count; i += blockDim.x) {
    const uint32_t four = bytes ? bytes[i] : 0;
    reinterpret_cast<uint32_t*>(map)[i] = four;
    reinterpret_cast<uint32_t*>(mask)[i] = level.above(four);
  }
}

// One map, from the extremes on, as standardise() gives it; `map` and `mask` at multiples of four bytes, as wide as
// whole groups of columns.
template <class Team, class Values>
__device__ void standardise_bytes(const Team& team, const Args& args, const Geometry& geometry, const Values& values,
                                  int end, bool large, uint8_t* map, uint8_t* mask, float* threshold, uint32_t* bytes,
                                  Scratch* s) {
  const Extremes extremes = extremes_of(team, values, large, s);
  const float range = extremes.high - extremes.low;
  const int64_t first = int64_t(values.first) * args.width, count = (int64_t(end - values.first) * args.width) / 4;
  const bool any = finite(range) && range != 0;
  int level = 0;
  if (any) {
    percentile_of_bytes(team, geometry, values, Quantiser(extremes.low, range), bytes, s);
    const int64_t a = s->bin[0], b = s->bin[1];
    level = byte_level(args.theta_micro, a * kScale + (b - a) * geometry.rank.remainder);
  }
  team.arrive();  // from here on no block reads another
  put(any ? bytes : nullptr, count, Level(level), map + first, mask + first);
  if (team.rank() == 0 && threadIdx.x == 0) *threshold = float(level);
  team.wait();
}

}  // namespace lidcam::pas::cuda
