// PaS on the GPU: one launch per batch, a block or a cluster of blocks per map, no workspace in global memory.
// The definition is lidcam_rt/pas/reference.py; this gives the same bits. The resized map is never stored: every pass
// walks down the columns and makes each value again from four row values held in registers.
// Compile with -fmad=false.
#pragma once
#include <cstdint>

#include "cuda/scan.cuh"
#include "cuda/team.cuh"
#include "pas/pas_args.h"

namespace lidcam::pas::cuda {

constexpr int kBins = 2048, kCopies = 8, kColumns = 4;
constexpr int64_t kScale = 100000;

// Weights and first source of one output of one axis; source k is clamp(base + k - 1). Linear: outer weights are 0.
struct Tap {
  float weight[4];
  int base;
};

struct Scratch {
  float low[32], high[32], team_low, team_high;
  uint32_t sums[32], least[32], team_least;
  uint32_t bin[2], below[2], inside[2];
};

static_assert(sizeof(Scratch) + kBins * sizeof(uint32_t) <= kFixedBytes && sizeof(Tap) == kTapBytes, "pas_args.h");

using lidcam::cuda::Block;
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
using lidcam::cuda::Cluster;
#endif

__device__ inline bool finite(float v) { return fabsf(v) <= 3.402823466e38f; }

__host__ __device__ inline int common_divisor(int a, int b) {
  while (b) {
    const int c = a % b;
    a = b;
    b = c;
  }
  return a;
}

// One axis. Outputs `period` apart have equal weights and sources `step` apart: the table holds one period, and only
// these few weights are evaluated in float64.
struct Axis {
  int n_in, n_out, period, step;
  bool linear;
  const Tap* table;

  __device__ Axis(int in, int out, bool is_linear) : n_in(in), n_out(out), linear(is_linear), table(nullptr) {
    const int divisor = common_divisor(in, out);
    period = out / divisor;
    step = in / divisor;
  }
  // A call, not inlined: it is rare, and six sweeps would each hold a copy.
  __device__ __noinline__ Tap make(int i) const {
    const int64_t numerator = (2 * int64_t(i) + 1) * n_in - n_out, denominator = 2 * int64_t(n_out);
    int64_t base = numerator / denominator;
    if (numerator - base * denominator < 0) --base;
    const double t = double(numerator - base * denominator) / double(denominator);
    if (linear) return {{0.0f, float(1.0 - t), float(t), 0.0f}, int(base)};
    const double a = -0.75, u = t + 1.0, v = 1.0 - t, z = 2.0 - t;
    return {{float(((a * u - 5.0 * a) * u + 8.0 * a) * u - 4.0 * a), float(((a + 2.0) * t - (a + 3.0)) * t * t + 1.0),
             float(((a + 2.0) * v - (a + 3.0)) * v * v + 1.0), float(((a * z - 5.0 * a) * z + 8.0 * a) * z - 4.0 * a)},
            int(base)};
  }
  // Output `phase` of the period, moved by `shift` sources.
  __device__ Tap tap(int phase, int shift) const {
    Tap t = table ? table[phase] : make(phase);
    t.base += shift;
    return t;
  }
};

struct Resizer {
  Axis across, down;
  const float* cam;  // [h, w], in shared memory where it fits

  __device__ float row_value(int row, const Tap& t) const {
    const float* in = cam + int64_t(row) * across.n_in;
    const int last = across.n_in - 1;
    float v = in[min(max(t.base - 1, 0), last)] * t.weight[0];
    v = v + in[min(max(t.base, 0), last)] * t.weight[1];
    v = v + in[min(max(t.base + 1, 0), last)] * t.weight[2];
    v = v + in[min(max(t.base + 2, 0), last)] * t.weight[3];
    return v;
  }

  // visit(y, x, n, v): v[0..n) are the values at (y, x..x+n), every value of rows [begin, end) once.
  template <class Visit>
  __device__ void sweep(int begin, int end, Visit visit) const {
    const int groups = (across.n_out + kColumns - 1) / kColumns;
    const int parts = max(1, min(int(blockDim.x) / groups, end - begin));
#pragma unroll 1
    for (int item = threadIdx.x; item < groups * parts; item += blockDim.x) {
      const int part = item / groups, x = (item - part * groups) * kColumns, n = min(kColumns, across.n_out - x);
      int phases[kColumns], shifts[kColumns];
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const int column = min(x + c, across.n_out - 1), turn = column / across.period;
        phases[c] = column - turn * across.period;
        shifts[c] = turn * across.step;
      }
      float rows[4][kColumns] = {};
      int y = begin + int(int64_t(end - begin) * part / parts);
      const int stop = begin + int(int64_t(end - begin) * (part + 1) / parts);
      int turn = y / down.period, phase = y - turn * down.period, held = -8;
#pragma unroll 1
      for (; y < stop; ++y) {
        const Tap t = down.tap(phase, turn * down.step);
        held = max(held, t.base - 4);
#pragma unroll 1
        while (held < t.base) {
          ++held;
          const int row = min(max(held + 2, 0), down.n_in - 1);
#pragma unroll
          for (int c = 0; c < kColumns; ++c) {
            rows[0][c] = rows[1][c];
            rows[1][c] = rows[2][c];
            rows[2][c] = rows[3][c];
            rows[3][c] = row_value(row, across.tap(phases[c], shifts[c]));
          }
        }
        float v[kColumns];
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
          v[c] = rows[0][c] * t.weight[0];
          v[c] = v[c] + rows[1][c] * t.weight[1];
          v[c] = v[c] + rows[2][c] * t.weight[2];
          v[c] = v[c] + rows[3][c] * t.weight[3];
        }
        visit(y, x, n, v);
        if (++phase == down.period) {
          phase = 0;
          ++turn;
        }
      }
    }
  }
};

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
      : data(p), width(w), wide(w % 4 == 0 && reinterpret_cast<uintptr_t>(p) % sizeof(Four) == 0),
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

struct Rank {
  uint32_t low, next;
  int remainder;  // between the two, in 1 / kScale
};

__device__ inline Rank rank_of(int percentile_milli, int64_t n) {
  const int64_t position = int64_t(percentile_milli) * (n - 1), low = position / kScale;
  return {uint32_t(low), uint32_t(low + 1 < n ? low + 1 : n - 1), int(position - low * kScale)};
}

// For two ranks: the bin that holds each, how many values lie below that bin, how many in it. All threads call it;
// count(bin) may read other blocks. The blocks of the team have met when it returns.
template <class Team, class Count>
__device__ void locate(const Team& team, Scratch* s, int bins, uint32_t first_rank, uint32_t second_rank, Count count) {
  const int per = (bins + blockDim.x - 1) / blockDim.x, first = threadIdx.x * per;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  uint32_t own = 0;
  for (int b = first; b < min(first + per, bins); ++b) own += count(b);
  const uint32_t up_to = lidcam::cuda::warp_inclusive_sum(own);
  if (lane == 31) s->sums[warp] = up_to;
  __syncthreads();
  uint32_t before = up_to - own;
  for (int i = 0; i < warp; ++i) before += s->sums[i];
  for (int r = 0; r < 2; ++r) {
    const uint32_t rank = r ? second_rank : first_rank;
    if (rank < before || rank - before >= own) continue;
    uint32_t below = before, inside;
    int b = first;
    for (; inside = count(b), rank - below >= inside; ++b) below += inside;
    s->bin[r] = uint32_t(b);
    s->below[r] = below;
    s->inside[r] = inside;
  }
  team.sync();
}

// Order of keys = order of floats; both zeros have one key.
__device__ inline uint32_t key_of(float v) {
  const uint32_t bits = __float_as_uint(v + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ inline float float_of(uint32_t key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// The percentile of floats by radix select: each(f) calls f(value) for the values of this block. Bins are 0 on entry.
template <class Team, class Each>
__device__ float float_standard(const Team& team, Scratch* s, uint32_t* bins, Rank rank, Each each) {
  uint32_t prefix = 0, low = rank.low, inside = 0;
#pragma unroll 1
  for (int pass = 0; pass < 3; ++pass) {
    const int shift = pass == 0 ? 21 : pass == 1 ? 10 : 0, bits = pass == 2 ? 10 : 11;
    if (pass) {
      for (int b = threadIdx.x; b < kBins; b += blockDim.x) bins[b] = 0;
      __syncthreads();
    }
    each([&](float v) {
      const uint32_t key = key_of(v);
      if (pass == 0 || key >> (shift + bits) == prefix) atomicAdd(&bins[key >> shift & ((1u << bits) - 1)], 1u);
    });
    team.sync();
    locate(team, s, 1 << bits, low, low, [&](int b) {
      uint32_t total = 0;
      for (int r = 0; r < team.size(); ++r) total += team.at(bins, r)[b];
      return total;
    });
    prefix = prefix << bits | s->bin[0];
    low -= s->below[0];
    inside = s->inside[0];
  }
  const float a = float_of(prefix);
  float b = a;
  if (rank.next != rank.low && low + 1 >= inside) {
    uint32_t least = 0xffffffffu;
    each([&](float v) {
      const uint32_t key = key_of(v);
      if (key > prefix) least = min(least, key);
    });
    for (int d = 16; d; d /= 2) least = min(least, __shfl_xor_sync(0xffffffffu, least, d));
    if (threadIdx.x % 32 == 0) s->least[threadIdx.x / 32] = least;
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int i = 1; i < int(blockDim.x / 32); ++i) least = min(least, s->least[i]);
      s->team_least = least;
    }
    team.sync();
    for (int r = 0; r < team.size(); ++r) least = min(least, *team.at(&s->team_least, r));
    team.sync_remote();
    b = float_of(least);
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

// One map. T: uint8_t, or uint32_t for words. All threads of the team call it; `shared` holds args.shared_bytes.
template <class T, class Team>
__device__ void pas_map(const Team& team, const float* cam, const Args& args, T* map_out, T* mask_out,
                        float* threshold, unsigned char* shared) {
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
