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

// Bytes as uint8, or as words (float32 or int32) for engines without byte outputs.
template <class T>
struct Plane {
  T* data;
  int width;
  bool wide, integers;

  struct alignas(4 * sizeof(T)) Four {
    T v[4];
  };
  __device__ Plane(T* p, int w, int flags)
      : data(p),
        width(w),
        wide(w % 4 == 0 && reinterpret_cast<uintptr_t>(p) % sizeof(Four) == 0),
        integers(flags & kIntegers) {}
  __device__ T encode(int value) const {
    if (sizeof(T) == 1 || integers) return T(value);
    return T(__float_as_uint(float(value)));
  }
  __device__ int decode(T word) const {
    if (sizeof(T) == 1 || integers) return int(word);
    return int(__uint_as_float(uint32_t(word)));
  }
  __device__ void store(int y, int x, int n, const int* values) const {
    T* p = data + int64_t(y) * width + x;
    if (wide) {
      *reinterpret_cast<Four*>(p) = {{encode(values[0]), encode(values[1]), encode(values[2]), encode(values[3])}};
      return;
    }
    for (int c = 0; c < n; ++c) p[c] = encode(values[c]);
  }
  __device__ void clear(int begin, int end) const {
    const int64_t stop = int64_t(end) * width;
    for (int64_t i = int64_t(begin) * width + threadIdx.x; i < stop; i += blockDim.x) data[i] = 0;
  }
  // this = (map > level) over rows [begin, end).
  __device__ void above(const Plane& map, int begin, int end, int level) const {
    const int64_t first = int64_t(begin) * width, stop = int64_t(end) * width;
    if (wide && map.wide) {
      for (int64_t i = first + 4 * int64_t(threadIdx.x); i < stop; i += 4 * int64_t(blockDim.x)) {
        const Four in = *reinterpret_cast<const Four*>(map.data + i);
        Four out;
#pragma unroll
        for (int c = 0; c < 4; ++c) out.v[c] = encode(decode(in.v[c]) > level);
        *reinterpret_cast<Four*>(data + i) = out;
      }
      return;
    }
    for (int64_t i = first + threadIdx.x; i < stop; i += blockDim.x) data[i] = encode(decode(map.data[i]) > level);
  }
};

// One map. T: uint8_t, or uint32_t for words. All threads of the team call it; `shared` holds args.shared_bytes.
template <class T, class Team>
__device__ void pas_map(const Team& team, const float* cam, const Args& args, T* map_out, T* mask_out, float* threshold,
                        unsigned char* shared) {
  const int n_raw = args.h * args.w, flags = args.flags;
  const int begin = int(int64_t(args.height) * team.rank() / team.size());
  const int end = int(int64_t(args.height) * (team.rank() + 1) / team.size());
  const bool first_thread = team.rank() == 0 && threadIdx.x == 0;
  const Plane<T> map(map_out, args.width, flags), mask(mask_out, args.width, flags);
  const auto nothing = [&] {
    map.clear(begin, end);
    mask.clear(begin, end);
    if (first_thread) *threshold = 0;
  };

  Scratch* s = reinterpret_cast<Scratch*>(shared);
  uint32_t* bins = reinterpret_cast<uint32_t*>(shared + kFixedBytes) - kBins;
  Resizer resizer{Axis(args.w, args.width, flags & kLinear), Axis(args.h, args.height, flags & kLinear), cam};
  int left = args.shared_bytes - kFixedBytes;
  unsigned char* free = shared + kFixedBytes;
  const int taps = resizer.across.period + resizer.down.period;
  if (int64_t(taps) * int(sizeof(Tap)) <= left) {
    Tap* table = reinterpret_cast<Tap*>(free);
    for (int i = threadIdx.x; i < taps; i += blockDim.x)
      table[i] = i < resizer.across.period ? resizer.across.make(i) : resizer.down.make(i - resizer.across.period);
    resizer.across.table = table;
    resizer.down.table = table + resizer.across.period;
    free += taps * sizeof(Tap);
    left -= taps * int(sizeof(Tap));
  }
  float* copy = int64_t(n_raw) * 4 <= left ? reinterpret_cast<float*>(free) : nullptr;
  if (copy) resizer.cam = copy;
  for (int b = threadIdx.x; b < kBins; b += blockDim.x) bins[b] = 0;
  bool bad = false, uneven = false, large = false;
  const float first = cam[0];
  for (int i = threadIdx.x; i < n_raw; i += blockDim.x) {
    const float v = cam[i];
    if (copy) copy[i] = v;
    bad |= !finite(v);
    uneven |= v != first;
    large |= fabsf(v) > 1e37f;
  }
  bad = __syncthreads_or(bad);
  uneven = __syncthreads_or(uneven);
  large = __syncthreads_or(large);  // only then may the resize overflow
  if (bad || !uneven) return nothing();

  float low = __uint_as_float(0x7f800000u), high = -low;
  resizer.sweep(begin, end, [&](int, int, int, const float* v) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {  // columns past the edge repeat the last
      if (large && !finite(v[c])) high = __uint_as_float(0x7f800000u);
      low = v[c] < low ? v[c] : low;
      high = v[c] > high ? v[c] : high;
    }
  });
  for (int d = 16; d; d /= 2) {
    const float a = __shfl_xor_sync(0xffffffffu, low, d), b = __shfl_xor_sync(0xffffffffu, high, d);
    low = a < low ? a : low;
    high = b > high ? b : high;
  }
  if (threadIdx.x % 32 == 0) {
    s->low[threadIdx.x / 32] = low;
    s->high[threadIdx.x / 32] = high;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int i = 1; i < int(blockDim.x / 32); ++i) {
      low = s->low[i] < low ? s->low[i] : low;
      high = s->high[i] > high ? s->high[i] : high;
    }
    s->team_low = low;
    s->team_high = high;
  }
  team.sync();
  low = *team.at(&s->team_low, 0);
  high = *team.at(&s->team_high, 0);
  for (int r = 1; r < team.size(); ++r) {
    const float a = *team.at(&s->team_low, r), b = *team.at(&s->team_high, r);
    low = a < low ? a : low;
    high = b > high ? b : high;
  }
  team.sync_remote();
  const float range = high - low;
  if (!finite(range) || range == 0) return nothing();

  const bool raw = flags & kRaw, in_floats = flags & kFloat, normalize = flags & kNormalize;
  const bool in_bytes = !raw && !in_floats;
  const int64_t n = int64_t(args.height) * args.width;
  int64_t numerator = 0;
  float standard;
  if (in_bytes) {
    resizer.sweep(begin, end, [&](int y, int x, int n_columns, const float* v) {
      int bytes[kColumns];
#pragma unroll
      for (int c = 0; c < kColumns; ++c) bytes[c] = int(((v[c] - low) / range) * 255.0f);
      if (!normalize) map.store(y, x, n_columns, bytes);
      uint32_t count = 1;  // equal neighbours are counted at once
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        if (c >= n_columns) continue;
        if (c + 1 < n_columns && bytes[c + 1 < kColumns ? c + 1 : c] == bytes[c]) {
          ++count;
          continue;
        }
        atomicAdd(&bins[bytes[c] * kCopies + threadIdx.x % kCopies], count);
        count = 1;
      }
    });
    __syncthreads();
    for (int b = threadIdx.x; b < 256; b += blockDim.x) {
      uint32_t total = 0;
      for (int k = 0; k < kCopies; ++k) total += bins[b * kCopies + k];
      bins[b * kCopies] = total;
    }
    team.sync();
    const Rank rank = rank_of(args.percentile_milli, n);
    locate(team, s, 256, rank.low, rank.next, [&](int b) {
      uint32_t total = 0;
      for (int r = 0; r < team.size(); ++r) total += team.at(bins, r)[b * kCopies];
      return total;
    });
    const int64_t a = s->bin[0], b = s->bin[1];
    numerator = a * kScale + (b - a) * rank.remainder;
    standard = normalize ? float(double(numerator) / double(kScale)) : 0.0f;
  } else if (raw) {
    standard = float_standard(Block{}, s, bins, rank_of(args.percentile_milli, n_raw), [&](auto take) {
      for (int i = threadIdx.x; i < n_raw; i += blockDim.x) take(resizer.cam[i]);
    });
  } else {
    standard = float_standard(team, s, bins, rank_of(args.percentile_milli, n), [&](auto take) {
      resizer.sweep(begin, end, [&](int, int, int n_columns, const float* v) {
#pragma unroll
        for (int c = 0; c < kColumns; ++c)
          if (c < n_columns) take(v[c] - low);
      });
    });
  }
  if (!finite(standard)) return nothing();

  const float theta = float(args.theta_micro) / 1e6f;
  if (normalize) {
    const int level = byte_level(args.theta_micro, 255 * kScale);
    resizer.sweep(begin, end, [&](int y, int x, int n_columns, const float* v) {
      int values[kColumns], above[kColumns];
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const float d = v[c] - low, source = raw ? v[c] : in_bytes ? (d / range) * 255.0f : d;
        float share = source > 0 ? 1.0f : 0.0f;
        if (standard > 0) {
          share = source / standard;
          share = share > 0 ? share : 0.0f;
          share = share < 1 ? share : 1.0f;
        }
        values[c] = int(rintf(share * 255.0f));
        above[c] = values[c] > level;
      }
      map.store(y, x, n_columns, values);
      mask.store(y, x, n_columns, above);
    });
    if (first_thread) *threshold = float(level);
    return;
  }
  if (in_bytes) {
    const int level = byte_level(args.theta_micro, numerator);
    mask.above(map, begin, end, level);
    if (first_thread) *threshold = float(level);
    return;
  }
  const float cut = theta * standard, relative = raw ? cut - low : cut, scaled = (relative / range) * 255.0f;
  const float clipped = scaled < -1.0f ? -1.0f : scaled > 255.0f ? 255.0f : scaled;
  const int level = int(floorf(clipped));
  resizer.sweep(begin, end, [&](int y, int x, int n_columns, const float* v) {
    int bytes[kColumns], above[kColumns];
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      bytes[c] = int(((v[c] - low) / range) * 255.0f);
      above[c] = in_floats ? (raw ? v[c] : v[c] - low) > cut : bytes[c] > level;
    }
    map.store(y, x, n_columns, bytes);
    mask.store(y, x, n_columns, above);
  });
  if (first_thread) *threshold = in_floats ? scaled : float(level);
}

}  // namespace lidcam::pas::cuda
