// PaS on the GPU: one launch per batch, a block or a cluster of blocks per map, no workspace in global memory.
// The definition is lidcam_rt/pas/reference.py; this gives the same bits.
// Compile with -fmad=false.
#pragma once
#include <cstdint>

#include "cuda/team.cuh"
#include "pas/pas_args.h"
#include "pas/percentile.cuh"
#include "pas/resize.cuh"

namespace lidcam::pas::cuda {

using lidcam::cuda::Block;
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
using lidcam::cuda::Cluster;
#endif

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

// Bytes as uint8, or as words (float32 or int32) for engines without byte outputs.
// kWide: the launch knows that four pixels can be stored at once.
template <class T, bool kWide>
struct Plane {
  T* data;
  int width;
  bool wide, integers;

  struct alignas(4 * sizeof(T)) Quad {
    T v[4];
  };
  __device__ Plane(T* p, int w, int flags)
      : data(p),
        width(w),
        wide(kWide || (w % 4 == 0 && reinterpret_cast<uintptr_t>(p) % sizeof(Quad) == 0)),
        integers(flags & kIntegers) {}
  __device__ T encode(uint32_t value) const {
    if (sizeof(T) == 1 || integers) return T(value);
    return T(__float_as_uint(float(int(value))));
  }
  __device__ uint32_t decode(T word) const {
    if (sizeof(T) == 1 || integers) return uint32_t(word);
    return uint32_t(int(__uint_as_float(uint32_t(word))));
  }
  // Four pixels as the bytes of a word, of which the first n are in the plane.
  __device__ void store(int y, int x, int n, uint32_t bytes) const { store(int64_t(y) * width + x, n, bytes); }
  __device__ void store(int64_t at, int n, uint32_t bytes) const {
    T* p = data + at;
    if (wide) {
      if constexpr (sizeof(T) == 1)
        *reinterpret_cast<uint32_t*>(p) = bytes;
      else
        *reinterpret_cast<Quad*>(p) = {
            {encode(bytes & 255), encode(bytes >> 8 & 255), encode(bytes >> 16 & 255), encode(bytes >> 24)}};
      return;
    }
#pragma unroll 1
    for (int c = 0; c < n; ++c) p[c] = encode(bytes >> (8 * c) & 255);
  }
  __device__ uint32_t load_four(int64_t at) const {
    const T* p = data + at;
    if constexpr (sizeof(T) == 1) {
      return *reinterpret_cast<const uint32_t*>(p);
    } else {
      const Quad in = *reinterpret_cast<const Quad*>(p);
      return decode(in.v[0]) | decode(in.v[1]) << 8 | decode(in.v[2]) << 16 | decode(in.v[3]) << 24;
    }
  }
  __device__ void clear(int begin, int end) const {
    const int64_t stop = int64_t(end) * width;
    for (int64_t i = int64_t(begin) * width + threadIdx.x; i < stop; i += blockDim.x) data[i] = 0;
  }
  // this = (map > level) over rows [begin, end).
  __device__ void above(const Plane& map, int begin, int end, const Level& level) const {
    const int64_t first = int64_t(begin) * width, stop = int64_t(end) * width;
    if (wide && map.wide) {
#pragma unroll 4
      for (int64_t i = first + 4 * int64_t(threadIdx.x); i < stop; i += 4 * int64_t(blockDim.x))
        store(i, 4, level.above(map.load_four(i)));
      return;
    }
    for (int64_t i = first + threadIdx.x; i < stop; i += blockDim.x)
      data[i] = encode(level.above(map.decode(map.data[i])) & 1);
  }
};

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
  __device__ uint32_t one(float v) const { return uint32_t(int(((v - low) / range) * 255.0f)); }
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
    if (differ || divides) {
      packed = 0;
#pragma unroll 1
      for (int c = kColumns - 1; c >= 0; --c) packed = packed << 8 | one(c < 2 ? c ? v[1] : v[0] : c < 3 ? v[2] : v[3]);
    }
    return packed;
  }
};

// One map, from the extremes on. All threads of the team call it; the rows that `values` gives are [begin, end).
template <class Plane, class Team, class Values>
__device__ void standardise(const Team& team, const Args& args, const Resizer& resizer, const Values& values, int begin,
                            int end, bool large, const Plane& map, const Plane& mask, float* threshold, Scratch* s) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32, flags = args.flags;
  const bool first_thread = team.rank() == 0 && threadIdx.x == 0;
  const auto nothing = [&] {
    map.clear(begin, end);
    mask.clear(begin, end);
    if (first_thread) *threshold = 0;
  };

  float low = __uint_as_float(0x7f800000u), high = -low;
  values.each([&](int, int, int, int, const float* v) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {  // columns past the edge repeat the last
      low = fminf(low, v[c]);
      high = fmaxf(high, v[c]);
    }
  });
  if (large)  // a NaN is no extreme
    values.each([&](int, int, int, int, const float* v) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c)
        if (!finite(v[c])) high = __uint_as_float(0x7f800000u);
    });
  // As keys, so that the order of floats is that of integers; 0 - max is the smallest.
  uint32_t low_key = ~lidcam::cuda::warp_max(~key_of(low)), high_key = lidcam::cuda::warp_max(key_of(high));
  if (lane == 0) {
    s->low[warp] = low_key;
    s->high[warp] = high_key;
  }
  __syncthreads();
  low_key = ~lidcam::cuda::warp_max(~s->low[lane < warps ? lane : 0]);
  high_key = lidcam::cuda::warp_max(s->high[lane < warps ? lane : 0]);
  if (team.size() > 1) {
    if (threadIdx.x == 0) {
      s->team_low = low_key;
      s->team_high = high_key;
    }
    team.sync();
    const int other = lane < team.size() ? lane : 0;
    low_key = ~lidcam::cuda::warp_max(~*team.at(&s->team_low, other));
    high_key = lidcam::cuda::warp_max(*team.at(&s->team_high, other));
  }
  low = float_of(low_key);
  high = float_of(high_key);
  const float range = high - low;

  const bool raw = flags & kRaw, in_floats = flags & kFloat, normalize = flags & kNormalize;
  const bool in_bytes = !raw && !in_floats;
  const int64_t n = int64_t(args.height) * args.width;
  const int n_raw = args.h * args.w;
  const Quantiser quantiser(low, range);
  [[maybe_unused]] uint32_t kept[kKeptRows];
  int64_t numerator = 0;
  float standard = __uint_as_float(0x7f800000u);  // infinite: there is none
  if (!finite(range) || range == 0) {
  } else if (in_bytes) {
    values.each([&](int slot, int y, int x, int n_columns, const float* v) {
      const uint32_t bytes = quantiser.four(v);
      if constexpr (Values::kSlots) kept[slot] = bytes;
      if (!normalize) map.store(y, x, n_columns, bytes);
      uint32_t* const bins = s->bins + threadIdx.x % kCopies;
      if (n_columns == kColumns && bytes == (bytes & 255) * 0x01010101u) {
        atomicAdd(&bins[(bytes & 255) * kCopies], uint32_t(kColumns));
        return;
      }
#pragma unroll
      for (int c = 0; c < kColumns; ++c)
        if (c < n_columns) atomicAdd(&bins[(bytes >> (8 * c) & 255) * kCopies], 1u);
    });
    __syncthreads();
    struct alignas(16) Quad {
      uint32_t v[4];
    };
    static_assert(kCopies == 8);
    for (int b = threadIdx.x; b < 256; b += blockDim.x) {
      const Quad* copies = reinterpret_cast<const Quad*>(s->bins + b * kCopies);
      const Quad p = copies[0], q = copies[1];
      s->counts[b] = p.v[0] + p.v[1] + p.v[2] + p.v[3] + q.v[0] + q.v[1] + q.v[2] + q.v[3];
    }
    team.sync();
    const Rank rank = rank_of(args.percentile_milli, n);
    locate(s, 256, rank.low, rank.next, [&](int b) {
      uint32_t total = 0;
      for (int r = 0; r < team.size(); ++r) total += team.at(s->counts, r)[b];
      return total;
    });
    const int64_t a = s->bin[0], b = s->bin[1];
    numerator = a * kScale + (b - a) * rank.remainder;
    standard = normalize ? float(double(numerator) / double(kScale)) : 0.0f;
  } else if (raw) {
    standard = float_standard(Block{}, s, rank_of(args.percentile_milli, n_raw), [&](auto take) {
      for (int i = threadIdx.x; i < n_raw; i += blockDim.x) take(resizer.cam[i]);
    });
  } else {
    standard = float_standard(team, s, rank_of(args.percentile_milli, n), [&](auto take) {
      values.each([&](int, int, int, int n_columns, const float* v) {
#pragma unroll
        for (int c = 0; c < kColumns; ++c)
          if (c < n_columns) take(v[c] - low);
      });
    });
  }
  team.arrive();  // from here on no block reads another

  const float theta = float(args.theta_micro) / 1e6f;
  if (!finite(standard)) {
    nothing();
  } else if (normalize) {
    const int level = byte_level(args.theta_micro, 255 * kScale);
    const Level cut(level);
    values.each([&](int, int y, int x, int n_columns, const float* v) {
      uint32_t bytes[kColumns];
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const float d = v[c] - low, source = raw ? v[c] : in_bytes ? (d / range) * 255.0f : d;
        float share = source > 0 ? 1.0f : 0.0f;
        if (standard > 0) {
          share = source / standard;
          share = share > 0 ? share : 0.0f;
          share = share < 1 ? share : 1.0f;
        }
        bytes[c] = uint32_t(int(rintf(share * 255.0f)));
      }
      map.store(y, x, n_columns, pack(bytes));
      mask.store(y, x, n_columns, cut.above(pack(bytes)));
    });
    if (first_thread) *threshold = float(level);
  } else if (in_bytes) {
    const int level = byte_level(args.theta_micro, numerator);
    const Level cut(level);
    if constexpr (Values::kSlots)
      values.each([&](int slot, int y, int x, int n_columns, const float*) {
        mask.store(y, x, n_columns, cut.above(kept[slot]));
      });
    else
      mask.above(map, begin, end, cut);
    if (first_thread) *threshold = float(level);
  } else {
    const float cut = theta * standard, relative = raw ? cut - low : cut, scaled = (relative / range) * 255.0f;
    const float clipped = scaled < -1.0f ? -1.0f : scaled > 255.0f ? 255.0f : scaled;
    const int level = int(floorf(clipped));
    const Level bytes_above(level);
    values.each([&](int, int y, int x, int n_columns, const float* v) {
      const uint32_t bytes = quantiser.four(v);
      uint32_t above[kColumns];
#pragma unroll
      for (int c = 0; c < kColumns; ++c) above[c] = (raw ? v[c] : v[c] - low) > cut;
      map.store(y, x, n_columns, bytes);
      mask.store(y, x, n_columns, in_floats ? pack(above) : bytes_above.above(bytes));
    });
    if (first_thread) *threshold = in_floats ? scaled : float(level);
  }
  team.wait();
}

// One map. T: uint8_t, or uint32_t for words. All threads of the team call it; `shared` holds args.shared_bytes.
// `given`: weights that the launch brings, or null. kKeep: the launch knows that
// fits_registers().
template <class T, bool kKeep, class Team>
__device__ void pas_map(const Team& team, const float* cam, const Args& args, const Taps* given, T* map_out,
                        T* mask_out, float* threshold, unsigned char* shared) {
  const int n_raw = args.h * args.w, flags = args.flags;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  const int begin = int(int64_t(args.height) * team.rank() / team.size());
  const int end = int(int64_t(args.height) * (team.rank() + 1) / team.size());
  const Plane<T, kKeep> map(map_out, args.width, flags), mask(mask_out, args.width, flags);

  Scratch* s = reinterpret_cast<Scratch*>(shared);
  Resizer resizer{Axis(args.w, args.width, flags & kLinear), Axis(args.h, args.height, flags & kLinear), cam};
  Rows rows(resizer.down, begin, end, args.width);
  const int taps = resizer.across.period + resizer.down.period;
  const int64_t left = args.shared_bytes - kFixedBytes, tap_bytes = int64_t(taps) * kTapBytes;
  unsigned char* const free = shared + kFixedBytes;
  if (tap_bytes <= left) {
    Tap* table = reinterpret_cast<Tap*>(free);
    for (int i = threadIdx.x; i < taps; i += blockDim.x) {
      const bool is_across = i < resizer.across.period;
      const int phase = is_across ? i : i - resizer.across.period;
      if (given && flags & kTaps)
        table[i] = is_across ? given->across[phase] : given->down[phase];
      else
        table[i] = is_across ? resizer.across.make(phase) : resizer.down.make(phase);
    }
    resizer.across.table = table;
    resizer.down.table = table + resizer.across.period;
  }
  float* const copy = reinterpret_cast<float*>(free + (tap_bytes <= left ? tap_bytes : 0));
  const bool copied = (tap_bytes <= left ? tap_bytes : 0) + int64_t(n_raw) * 4 <= left;
  if (copied) resizer.cam = copy;
  const int64_t with_rows = row_bytes(args, rows.count);
  if (with_rows <= left) rows.data = reinterpret_cast<float*>(free + row_bytes(args, 0));

  for (int b = threadIdx.x; b < kBins; b += blockDim.x) s->bins[b] = 0;
  enum { kBad = 1, kUneven = 2, kLarge = 4 };
  uint32_t facts = 0;
  const float first = cam[0];
  for (int i = threadIdx.x; i < n_raw; i += blockDim.x) {
    const float v = cam[i];
    if (copied) copy[i] = v;
    facts |= (finite(v) ? 0 : kBad) | (v != first ? kUneven : 0) | (fabsf(v) > 1e37f ? kLarge : 0);
  }
  facts = lidcam::cuda::warp_or(facts);
  if (lane == 0) s->facts[warp] = facts;
  __syncthreads();
  facts = lidcam::cuda::warp_or(lane < warps ? s->facts[lane] : 0);
  if (facts & kBad || !(facts & kUneven)) {
    map.clear(begin, end);
    mask.clear(begin, end);
    if (team.rank() == 0 && threadIdx.x == 0) *threshold = 0;
    return;
  }
  const bool large = facts & kLarge;  // only then may the resize overflow

  if (kKeep || rows.data) {
    // As addresses that the compiler sees to be in shared memory.
    resizer.across.table = reinterpret_cast<const Tap*>(free);
    resizer.down.table = resizer.across.table + resizer.across.period;
    resizer.cam = reinterpret_cast<const float*>(free + tap_bytes);
    rows.data = reinterpret_cast<float*>(free + row_bytes(args, 0));
    rows.fill(resizer);
    __syncthreads();
    if constexpr (kKeep) {
      const Kept values(resizer, rows, begin, end);
      standardise(team, args, resizer, values, begin, end, large, map, mask, threshold, s);
    } else {
      const Swept<FromRows> values{resizer, begin, end, {rows}};
      standardise(team, args, resizer, values, begin, end, large, map, mask, threshold, s);
    }
  } else {
    const Swept<FromMap> values{resizer, begin, end, {resizer}};
    standardise(team, args, resizer, values, begin, end, large, map, mask, threshold, s);
  }
}

}  // namespace lidcam::pas::cuda
