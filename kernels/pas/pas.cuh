// PaS on the GPU: one launch per batch, a block or a cluster of blocks per map, no workspace in global memory.
// The definition is lidcam_rt/pas/reference.py; this gives the same bits.
// Compile with -fmad=false.
#pragma once
#include <cstdint>

#include "cuda/team.cuh"
#include "pas/bytes.cuh"
#include "pas/pas_args.h"
#include "pas/percentile.cuh"
#include "pas/quantise.cuh"
#include "pas/resize.cuh"

namespace lidcam::pas::cuda {

using lidcam::cuda::Block;
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
using lidcam::cuda::Cluster;
#endif

// Bytes as uint8, or as words (float32 or int32) for engines without byte outputs.
template <class T>
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
        wide(w % 4 == 0 && reinterpret_cast<uintptr_t>(p) % sizeof(Quad) == 0),
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

// One map, from the extremes on. All threads of the team call it; the rows that `values` gives are [begin, end).
template <class Plane, class Team, class Values>
__device__ void standardise(const Team& team, const Args& args, const Resizer& resizer, const Values& values, int begin,
                            int end, bool large, const Plane& map, const Plane& mask, float* threshold, Scratch* s) {
  const int flags = args.flags;
  const bool first_thread = team.rank() == 0 && threadIdx.x == 0;
  const auto nothing = [&] {
    map.clear(begin, end);
    mask.clear(begin, end);
    if (first_thread) *threshold = 0;
  };

  const Extremes extremes = extremes_of(team, values, large, s);
  const float low = extremes.low, high = extremes.high;
  const float range = high - low;

  const bool raw = flags & kRaw, in_floats = flags & kFloat, normalize = flags & kNormalize;
  const bool in_bytes = !raw && !in_floats;
  const int n_raw = args.h * args.w;
  const Rank rank = rank_of(args.percentile_milli, raw ? n_raw : int64_t(args.height) * args.width);
  int64_t numerator = 0;
  float standard = __uint_as_float(0x7f800000u);  // infinite: there is none
  if (!finite(range) || range == 0) {
  } else if (in_bytes) {
    const Quantiser quantiser(low, range);
    values.each([&](int y, int x, int n_columns, const float* v) {
      const uint32_t bytes = quantiser.four(v);
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
    sum_copies(s);
    team.sync();
    locate(s, 256, rank.low, rank.next, [&](int b) { return sum_over<1>(team, s->counts, b); });
    const int64_t a = s->bin[0], b = s->bin[1];
    numerator = a * kScale + (b - a) * rank.remainder;
    standard = normalize ? float(double(numerator) / double(kScale)) : 0.0f;
  } else if (raw) {
    standard = float_standard(Block{}, s, rank, [&](auto take) {
      for (int i = threadIdx.x; i < n_raw; i += blockDim.x) take(resizer.cam[i]);
    });
  } else {
    standard = float_standard(team, s, rank, [&](auto take) {
      values.each([&](int, int, int n_columns, const float* v) {
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
    values.each([&](int y, int x, int n_columns, const float* v) {
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
    mask.above(map, begin, end, cut);
    if (first_thread) *threshold = float(level);
  } else {
    const float cut = theta * standard, relative = raw ? cut - low : cut, scaled = (relative / range) * 255.0f;
    const float clipped = scaled < -1.0f ? -1.0f : scaled > 255.0f ? 255.0f : scaled;
    const int level = int(floorf(clipped));
    const Level bytes_above(level);
    const Quantiser quantiser(low, range);
    values.each([&](int y, int x, int n_columns, const float* v) {
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
// `plan`: what the host made, or null. kBytes: the launch knows that takes_bytes().
template <class T, bool kBytes, class Team>
__device__ void pas_map(const Team& team, const float* cam, const Args& args, const Plan* plan, T* map_out, T* mask_out,
                        float* threshold, unsigned char* shared) {
  const int n_raw = args.h * args.w, flags = args.flags;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  const Share share(args.height, team.rank(), team.size());
  const int begin = share.begin, end = share.end;
  const Plane<T> map(map_out, args.width, flags), mask(mask_out, args.width, flags);
  const float first = cam[0], mine = cam[min(int(threadIdx.x), n_raw - 1)];  // on their way while the rest is made

  Scratch* s = reinterpret_cast<Scratch*>(shared);
  const Geometry geometry = plan ? plan->geometry : geometry_of(args);
  Resizer resizer{Axis(args.w, args.width, geometry.across, flags & kLinear),
                  Axis(args.h, args.height, geometry.down, flags & kLinear), cam};
  Rows rows(resizer.down, begin, end, args.width);
  const int taps = resizer.across.period + resizer.down.period;
  const int64_t left = args.shared_bytes - kFixedBytes, tap_bytes = int64_t(taps) * kTapBytes;
  unsigned char* const free = shared + kFixedBytes;
  const Table table{reinterpret_cast<Four*>(free), reinterpret_cast<int*>(free + int64_t(taps) * sizeof(Four))};
  const Table down_table{table.weights + resizer.across.period, table.bases + resizer.across.period};
  if (kBytes || tap_bytes <= left) {
    // Neighbours in different warps: those of a warp are read one after the other.
    for (int i = lane * warps + warp; i < taps; i += blockDim.x) {
      const bool is_across = i < resizer.across.period;
      const int phase = is_across ? i : i - resizer.across.period;
      if (plan && flags & kTaps)
        table.set(i, is_across ? plan->across[phase] : plan->down[phase]);
      else
        table.set(i, is_across ? resizer.across.make(phase) : resizer.down.make(phase));
    }
    resizer.across.table = table;
    resizer.down.table = down_table;
  }
  float* const copy = reinterpret_cast<float*>(free + (tap_bytes <= left ? tap_bytes : 0));
  const bool copied = kBytes || (tap_bytes <= left ? tap_bytes : 0) + int64_t(n_raw) * 4 <= left;
  if (copied) resizer.cam = copy;
  const int64_t with_rows = row_bytes(args, rows.count);
  if (with_rows <= left) rows.data = reinterpret_cast<float*>(free + row_bytes(args, 0));

  for (int b = threadIdx.x; b < kBins; b += blockDim.x) s->bins[b] = 0;
  enum { kBad = 1, kUneven = 2, kLarge = 4 };
  uint32_t facts = 0;
  for (int i = threadIdx.x; i < n_raw; i += blockDim.x) {
    const float v = i < int(blockDim.x) ? mine : cam[i];
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

  if (kBytes || rows.data) {
    // As addresses that the compiler sees to be in shared memory.
    resizer.across.table = table;
    resizer.down.table = down_table;
    resizer.cam = reinterpret_cast<const float*>(free + tap_bytes);
    rows.data = reinterpret_cast<float*>(free + row_bytes(args, 0));
    rows.fill(resizer);
    __syncthreads();
    const Swept<FromRows, kBytes ? 4 : 1> values{resizer, begin, end, {rows}};
    if constexpr (kBytes)
      standardise_bytes(team, args, geometry, values, end, large, map_out, mask_out, threshold,
                        reinterpret_cast<uint32_t*>(free + with_rows), s);
    else
      standardise(team, args, resizer, values, begin, end, large, map, mask, threshold, s);
  } else {
    const Swept<FromMap, 1> values{resizer, begin, end, {resizer}};
    standardise(team, args, resizer, values, begin, end, large, map, mask, threshold, s);
  }
}

}  // namespace lidcam::pas::cuda
