// What a launch of the CUDA kernels of PaS needs to know; read by nvcc and by the host's compiler.
#pragma once
#include <cstdint>

#if defined(__CUDACC__)
#define LIDCAM_EITHER __host__ __device__
#else
#define LIDCAM_EITHER
#endif

namespace lidcam::pas::cuda {

enum Flag : int32_t {
  kNormalize = 1,  // mode `normalize`
  kFloat = 2,      // precision `float`
  kRaw = 4,        // where `raw`
  kLinear = 8,     // interpolation `linear`
  kIntegers = 16,  // words are int32 instead of float32 (only where outputs are words)
  kTaps = 32,      // the launch brings the weights of the resize
};

struct Args {
  int h, w, height, width;
  int percentile_milli;  // rint(1000 percentile)
  int theta_micro;       // rint(1000000 theta)
  int flags;
  int shared_bytes;  // dynamic shared memory of the launch
};

// Weights and first source of one output of one axis; source k is clamp(base + k - 1). Linear: outer weights are 0.
struct Tap {
  float weight[4];
  int base;
};

// Output `i` of an axis. In float64, so that the host and every device make the same weights.
LIDCAM_EITHER inline Tap make_tap(int n_in, int n_out, bool linear, int i) {
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

// Outputs of an axis `period` apart have equal weights, and sources `step` apart.
LIDCAM_EITHER inline int common_divisor(int a, int b) {
  while (b) {
    const int c = a % b;
    a = b;
    b = c;
  }
  return a;
}

// Outputs of an axis before its weights repeat, and sources they move by.
struct Period {
  int outputs, sources;
};
LIDCAM_EITHER inline Period period_of(int n_in, int n_out) {
  const int divisor = common_divisor(n_in, n_out);
  return {n_out / divisor, n_in / divisor};
}

// The two values that a percentile lies between, in order from the smallest.
constexpr int64_t kScale = 100000;
struct Rank {
  uint32_t low, next;
  int remainder;  // between the two, in 1 / kScale
};
LIDCAM_EITHER inline Rank rank_of(int percentile_milli, int64_t n) {
  const int64_t position = int64_t(percentile_milli) * (n - 1), low = position / kScale;
  return {uint32_t(low), uint32_t(low + 1 < n ? low + 1 : n - 1), int(position - low * kScale)};
}

// What divisions give, made once by the host.
struct Geometry {
  Period across, down;
  Rank rank;  // among the bytes of the resized map
};
LIDCAM_EITHER inline Geometry geometry_of(const Args& a) {
  return {period_of(a.w, a.width), period_of(a.h, a.height), rank_of(a.percentile_milli, int64_t(a.height) * a.width)};
}

// What the host makes for a launch: the geometry, and the weights of both axes where their periods are as short as this
// (kTaps).
constexpr int kGivenTaps = 64;
struct Plan {
  Geometry geometry;
  Tap across[kGivenTaps], down[kGivenTaps];
};
inline void make_plan(Args& a, Plan* plan) {
  const Geometry& g = plan->geometry = geometry_of(a);
  if (g.across.outputs > kGivenTaps || g.down.outputs > kGivenTaps) return;
  a.flags |= kTaps;
  for (int i = 0; i < g.across.outputs; ++i) plan->across[i] = make_tap(a.w, a.width, a.flags & kLinear, i);
  for (int i = 0; i < g.down.outputs; ++i) plan->down[i] = make_tap(a.h, a.height, a.flags & kLinear, i);
}

constexpr int kThreads = 512;
constexpr int kColumns = 4;  // columns that a thread resizes together

// Shared memory, bytes: fixed, then as far as they fit all together: the weights, the activation map and its rows
// resized along x that a block needs; else the weights, then the map.
constexpr int kFixedBytes = 9984, kTapBytes = 20;

LIDCAM_EITHER inline int64_t tap_count(const Args& a) {
  return int64_t(period_of(a.w, a.width).outputs) + period_of(a.h, a.height).outputs;
}
// A map and `rows` rows resized along x.
LIDCAM_EITHER inline int64_t row_bytes(const Args& a, int64_t rows) {
  return (tap_count(a) * kTapBytes + int64_t(a.h) * a.w * 4 + 15) / 16 * 16 + 4 * rows * ((a.width + 3) / 4 * 4);
}
// For a map shared by this many blocks.
inline int64_t shared_bytes(const Args& a, int blocks) {
  const int64_t rows = (a.height + blocks - 1) / blocks, sources = ((rows - 1) * a.h + a.height - 1) / a.height + 4;
  return kFixedBytes + row_bytes(a, sources < a.h ? sources : a.h);
}
// Whether the percentile is one of bytes, and the map is not divided by it; and whether the bytes of four pixels can be
// stored at once, given that both outputs begin at a multiple of four.
inline bool takes_bytes(const Args& a) { return !(a.flags & (kNormalize | kFloat | kRaw)) && a.width % kColumns == 0; }
// The shared memory that this takes.
inline int64_t shared_with_bytes(const Args& a, int blocks) {
  return (shared_bytes(a, blocks) + 15) / 16 * 16 + int64_t((a.height + blocks - 1) / blocks) * a.width;
}

}  // namespace lidcam::pas::cuda
