// Percentiles on the GPU, of bytes by a histogram and of floats by radix select, over the blocks of a team.
#pragma once
#include <cstdint>

#include "cuda/scan.cuh"
#include "cuda/team.cuh"
#include "pas/extremes.cuh"
#include "pas/pas_args.h"

namespace lidcam::pas::cuda {

constexpr int kBins = 2048, kCopies = 8;

struct Scratch {
  uint32_t bins[kBins];
  uint32_t counts[256];  // of bytes: the copies together
  uint64_t team_extremes;
  uint32_t low[32], high[32];
  uint32_t sums[32], smallest[32], team_smallest;
  uint32_t bin[2], below[2], inside[2];
  uint32_t facts[32];
};

static_assert(sizeof(Scratch) <= kFixedBytes && kFixedBytes % 16 == 0, "pas_args.h");

// The copies of each bin together, into s->counts.
__device__ inline void sum_copies(Scratch* s) {
  struct alignas(16) Quad {
    uint32_t v[4];
  };
  static_assert(kCopies == 8);
  __syncthreads();
  for (int b = threadIdx.x; b < 256; b += blockDim.x) {
    const Quad* copies = reinterpret_cast<const Quad*>(s->bins + b * kCopies);
    const Quad p = copies[0], q = copies[1];
    s->counts[b] = p.v[0] + p.v[1] + p.v[2] + p.v[3] + q.v[0] + q.v[1] + q.v[2] + q.v[3];
  }
}

// The extremes of the whole map, of which `values` are this block's. The high one is infinite where one is not finite.
template <class Team, class Values>
__device__ Extremes extremes_of(const Team& team, const Values& values, bool large, Scratch* s) {
  Extremes found;
  values.each([&](int, int, int, const float* v) { found.take(v); });
  if (large)  // a NaN is not an extreme
    values.each([&](int, int, int, const float* v) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c)
        if (!(fabsf(v[c]) <= 3.402823466e38f)) found.high = __uint_as_float(0x7f800000u);
    });
  found.over_block(s->low, s->high);
  if (team.size() > 1) {
    const int lane = threadIdx.x % 32;
    if (threadIdx.x == 0) s->team_extremes = uint64_t(~key_of(found.low)) << 32 | key_of(found.high);
    team.sync();
    const uint64_t both = *team.at(&s->team_extremes, lane < team.size() ? lane : 0);
    found.low = float_of(~lidcam::cuda::warp_max(uint32_t(both >> 32)));
    found.high = float_of(lidcam::cuda::warp_max(uint32_t(both)));
  }
  return found;
}

// A counter of all blocks of the team together, read from so many blocks at once.
template <int kAtOnce, class Team>
__device__ uint32_t sum_over(const Team& team, const uint32_t* counters, int i) {
  uint32_t total = 0;
#pragma unroll kAtOnce
  for (int r = 0; r < Team::kMost; ++r)
    if (r < team.size()) total += team.at(counters, r)[i];
  return total;
}

// For two ranks: the bin that holds each, how many values lie below that bin, how many in it. All threads call it;
// count(bin) may read other blocks. The threads of the block have met when it returns.
template <class Count>
__device__ void locate(Scratch* s, int bins, uint32_t first_rank, uint32_t second_rank, Count count) {
  const int per = (bins + blockDim.x - 1) / blockDim.x, first = threadIdx.x * per;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const uint32_t alone = first < bins ? count(first) : 0;
  uint32_t mine = alone;
  for (int b = first + 1; b < min(first + per, bins); ++b) mine += count(b);
  const uint32_t up_to = lidcam::cuda::warp_inclusive_sum(mine);
  if (lane == 31) s->sums[warp] = up_to;
  __syncthreads();
  const uint32_t before = up_to - mine + lidcam::cuda::warp_sum(lane < warp ? s->sums[lane] : 0);
  for (int r = 0; r < 2; ++r) {
    const uint32_t rank = r ? second_rank : first_rank;
    if (rank < before || rank - before >= mine) continue;
    uint32_t below = before, inside = alone;
    int b = first;
    for (; rank - below >= inside; inside = count(b)) {
      below += inside;
      ++b;
    }
    s->bin[r] = uint32_t(b);
    s->below[r] = below;
    s->inside[r] = inside;
  }
  __syncthreads();
}

// The percentile of floats by radix select: each(f) calls f(value) for the values of this block. Bins are 0 on entry.
// When it returns, other blocks may still read this one's memory.
template <class Team, class Each>
__device__ float float_standard(const Team& team, Scratch* s, Rank rank, Each each) {
  uint32_t* const bins = s->bins;
  uint32_t prefix = 0, low = rank.low, inside = 0;
#pragma unroll 1
  for (int pass = 0; pass < 3; ++pass) {
    const int shift = pass == 0 ? 21 : pass == 1 ? 10 : 0, bits = pass == 2 ? 10 : 11;
    if (pass) {
      team.sync_remote();
      for (int b = threadIdx.x; b < kBins; b += blockDim.x) bins[b] = 0;
      __syncthreads();
    }
    each([&](float v) {
      const uint32_t key = key_of(v);
      if (pass == 0 || key >> (shift + bits) == prefix) atomicAdd(&bins[key >> shift & ((1u << bits) - 1)], 1u);
    });
    team.sync();
    locate(s, 1 << bits, low, low, [&](int b) { return sum_over<1>(team, bins, b); });
    prefix = prefix << bits | s->bin[0];
    low -= s->below[0];
    inside = s->inside[0];
  }
  const float a = float_of(prefix);
  float b = a;
  if (rank.next != rank.low && low + 1 >= inside) {
    uint32_t smallest = 0xffffffffu;
    each([&](float v) {
      const uint32_t key = key_of(v);
      if (key > prefix) smallest = min(smallest, key);
    });
    for (int d = 16; d; d /= 2) smallest = min(smallest, __shfl_xor_sync(0xffffffffu, smallest, d));
    if (threadIdx.x % 32 == 0) s->smallest[threadIdx.x / 32] = smallest;
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int i = 1; i < int(blockDim.x / 32); ++i) smallest = min(smallest, s->smallest[i]);
      s->team_smallest = smallest;
    }
    team.sync();
    for (int r = 0; r < team.size(); ++r) smallest = min(smallest, *team.at(&s->team_smallest, r));
    b = float_of(smallest);
  }
  // rem / 100000 in float32 is the float64 quotient rounded: no quotient of these is near enough to a tie.
  return a + (b - a) * (float(rank.remainder) / float(kScale));
}

// int(theta P) as in float64, P = numerator / 100000. Only a product that is a whole number needs float64 to tell to
// which side it is rounded.
__device__ inline int byte_level(int theta_micro, int64_t numerator) {
  constexpr int64_t kWhole = kScale * 1000000;
  const int64_t product = numerator * theta_micro, level = product / kWhole;
  if (product != level * kWhole) return int(level);
  return int((double(theta_micro) / 1e6) * (double(numerator) / double(kScale)));
}

}  // namespace lidcam::pas::cuda
