#include "pas/pas.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <thread>

// One copy of each loop per instruction set, chosen when the library is loaded.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define LIDCAM_CLONES __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define LIDCAM_CLONES
#endif

namespace lidcam::pas {
namespace {

constexpr int kLanes = 16;
constexpr int64_t kScale = 100000;

// Sixteen floats; the compiler splits it where registers are narrower. Spelled out because a minimum over floats is
// not vectorised without -ffast-math.
typedef float Lanes __attribute__((vector_size(64), aligned(4), may_alias));

template <int T>
inline __attribute__((always_inline)) void blend(const float* const* in, const float* weight, int n, float* out,
                                                 float* low, float* high) {
  const float *a = in[0], *b = in[1], *c = in[T - 2], *d = in[T - 1];
  const float wa = weight[0], wb = weight[1], wc = weight[T - 2], wd = weight[T - 1];
  Lanes lows = *reinterpret_cast<const Lanes*>(low), highs = *reinterpret_cast<const Lanes*>(high);
  int x = 0;
  for (; x + kLanes <= n; x += kLanes) {
    Lanes v = *reinterpret_cast<const Lanes*>(a + x) * wa;
    v = v + *reinterpret_cast<const Lanes*>(b + x) * wb;
    if (T == 4) {
      v = v + *reinterpret_cast<const Lanes*>(c + x) * wc;
      v = v + *reinterpret_cast<const Lanes*>(d + x) * wd;
    }
    *reinterpret_cast<Lanes*>(out + x) = v;
    lows = v < lows ? v : lows;
    highs = v > highs ? v : highs;
  }
  *reinterpret_cast<Lanes*>(low) = lows;
  *reinterpret_cast<Lanes*>(high) = highs;
  for (; x < n; ++x) {
    float v = a[x] * wa;
    v = v + b[x] * wb;
    if (T == 4) {
      v = v + c[x] * wc;
      v = v + d[x] * wd;
    }
    out[x] = v;
    low[0] = v < low[0] ? v : low[0];
    high[0] = v > high[0] ? v : high[0];
  }
}

LIDCAM_CLONES void blend4(const float* const* in, const float* weight, int n, float* out, float* low, float* high) {
  blend<4>(in, weight, n, out, low, high);
}
LIDCAM_CLONES void blend2(const float* const* in, const float* weight, int n, float* out, float* low, float* high) {
  blend<2>(in, weight, n, out, low, high);
}

LIDCAM_CLONES void to_bytes(const float* x, int64_t n, float low, float range, uint8_t* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = uint8_t(int32_t(((x[i] - low) / range) * 255.0f));
}

LIDCAM_CLONES void above_level(const uint8_t* map, int64_t n, int level, uint8_t* mask) {
  if (level < 0) {
    std::memset(mask, 1, n);
    return;
  }
  const uint8_t cut = uint8_t(level);
  for (int64_t i = 0; i < n; ++i) mask[i] = map[i] > cut;
}

LIDCAM_CLONES void above_cut(const float* x, int64_t n, float low, float cut, uint8_t* mask) {
  for (int64_t i = 0; i < n; ++i) mask[i] = (x[i] - low) > cut;
}

void histogram(const uint8_t* map, int64_t n, int64_t* total) {
  uint32_t bins[4][256] = {};  // equal neighbours do not wait for each other
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    uint64_t v;
    std::memcpy(&v, map + i, 8);
    for (int k = 0; k < 8; ++k) ++bins[k & 3][(v >> (8 * k)) & 255];
  }
  for (; i < n; ++i) ++bins[0][map[i]];
  for (int k = 0; k < 256; ++k) total[k] = int64_t(bins[0][k]) + bins[1][k] + bins[2][k] + bins[3][k];
}

bool overflows(const float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    if (!std::isfinite(x[i])) return true;
  return false;
}

struct Rank {
  int64_t low, next;
  int64_t remainder;
};

Rank rank_of(double percentile, int64_t n) {
  const int64_t position = int64_t(std::nearbyint(percentile * 1000)) * (n - 1);
  return {position / kScale, std::min(position / kScale + 1, n - 1), position % kScale};
}

float float_standard(std::vector<float>& values, double percentile) {
  const Rank r = rank_of(percentile, int64_t(values.size()));
  std::nth_element(values.begin(), values.begin() + r.low, values.end());
  const float a = values[r.low];
  const float b = r.next == r.low ? a : *std::min_element(values.begin() + r.next, values.end());
  return a + (b - a) * float(double(r.remainder) / double(kScale));
}

double byte_standard(const uint8_t* map, int64_t n, double percentile) {
  int64_t bins[256];
  histogram(map, n, bins);
  const Rank r = rank_of(percentile, n);
  int64_t a = 0, seen = bins[0];
  while (seen <= r.low) seen += bins[++a];
  int64_t b = a;
  while (seen <= r.next) seen += bins[++b];
  return double(a * kScale + (b - a) * r.remainder) / double(kScale);
}

}  // namespace

void Taps::make(int in, int out, bool is_linear) {
  if (in == n_in && out == n_out && is_linear == linear && taps) return;
  n_in = in, n_out = out, linear = is_linear, taps = is_linear ? 2 : 4;
  index.resize(size_t(taps) * out);
  weight.resize(size_t(taps) * out);
  for (int64_t i = 0; i < out; ++i) {
    const int64_t numerator = (2 * i + 1) * in - out, denominator = 2 * int64_t(out);
    int64_t base = numerator / denominator;
    if (numerator - base * denominator < 0) --base;
    const double t = double(numerator - base * denominator) / double(denominator);
    double ws[4];
    if (is_linear) {
      ws[0] = 1.0 - t, ws[1] = t;
    } else {
      const double a = -0.75, u = t + 1.0, v = 1.0 - t, z = 2.0 - t;
      ws[0] = ((a * u - 5.0 * a) * u + 8.0 * a) * u - 4.0 * a;
      ws[1] = ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0;
      ws[2] = ((a + 2.0) * v - (a + 3.0)) * v * v + 1.0;
      ws[3] = ((a * z - 5.0 * a) * z + 8.0 * a) * z - 4.0 * a;
    }
    for (int k = 0; k < taps; ++k) {
      index[size_t(k) * out + i] = int(std::clamp<int64_t>(base + k - (is_linear ? 0 : 1), 0, in - 1));
      weight[size_t(k) * out + i] = float(ws[k]);
    }
  }
}

void pas_map(const float* cam, int h, int w, int height, int width, const Options& options, Workspace& space,
             uint8_t* map, uint8_t* mask, float* threshold) {
  const int64_t n = int64_t(height) * width, n_raw = int64_t(h) * w;
  const auto nothing = [&] {
    std::memset(map, 0, n);
    std::memset(mask, 0, n);
    *threshold = 0;
  };
  float most = 0, first = cam[0];
  bool even = true;
  for (int64_t i = 0; i < n_raw; ++i) {
    if (!std::isfinite(cam[i])) return nothing();
    most = std::max(most, std::fabs(cam[i]));
    even = even && cam[i] == first;
  }
  if (even) return nothing();

  space.across.make(w, width, options.linear);
  space.down.make(h, height, options.linear);
  space.rows.resize(size_t(h) * width);
  space.resized.resize(n);
  const int taps = space.across.taps;
  const int* index = space.across.index.data();
  const float* weight = space.across.weight.data();
  for (int y = 0; y < h; ++y) {
    const float* in = cam + size_t(y) * w;
    float* out = space.rows.data() + size_t(y) * width;
    for (int x = 0; x < width; ++x) {
      float v = in[index[x]] * weight[x];
      for (int k = 1; k < taps; ++k) v = v + in[index[k * width + x]] * weight[k * width + x];
      out[x] = v;
    }
  }
  float lows[kLanes], highs[kLanes];
  std::fill(lows, lows + kLanes, INFINITY);
  std::fill(highs, highs + kLanes, -INFINITY);
  for (int y = 0; y < height; ++y) {
    const float* in[4];
    float ws[4];
    for (int k = 0; k < taps; ++k) {
      in[k] = space.rows.data() + size_t(space.down.index[size_t(k) * height + y]) * width;
      ws[k] = space.down.weight[size_t(k) * height + y];
    }
    (taps == 4 ? blend4 : blend2)(in, ws, width, space.resized.data() + size_t(y) * width, lows, highs);
  }
  float* x = space.resized.data();
  if (most > 1e37f && overflows(x, n)) return nothing();
  const float low = *std::min_element(lows, lows + kLanes);
  const float range = *std::max_element(highs, highs + kLanes) - low;
  if (!std::isfinite(range) || range == 0) return nothing();

  const double theta64 = std::nearbyint(options.theta * 1e6) / 1e6;
  to_bytes(x, n, low, range, map);
  const bool in_bytes = !options.raw && !options.float_precision;
  double standard_bytes = 0;
  float standard;
  if (in_bytes) {
    standard_bytes = byte_standard(map, n, options.percentile);
    standard = float(standard_bytes);
  } else {
    if (options.raw) {
      space.order.assign(cam, cam + n_raw);
    } else {
      space.order.resize(n);
      for (int64_t i = 0; i < n; ++i) space.order[i] = x[i] - low;
    }
    standard = float_standard(space.order, options.percentile);
    if (!std::isfinite(standard)) return nothing();
  }

  if (options.normalize) {
    for (int64_t i = 0; i < n; ++i) {
      const float above = x[i] - low;
      const float source = options.raw ? x[i] : in_bytes ? (above / range) * 255.0f : above;
      const float share = standard > 0 ? std::min(std::max(source / standard, 0.0f), 1.0f) : float(source > 0);
      map[i] = uint8_t(int(std::nearbyint(share * 255.0f)));
    }
    const int level = int(theta64 * 255);
    above_level(map, n, level, mask);
    *threshold = float(level);
  } else if (in_bytes) {
    const int level = int(theta64 * standard_bytes);
    above_level(map, n, level, mask);
    *threshold = float(level);
  } else {
    const float cut = float(theta64) * standard;
    const float relative = options.raw ? cut - low : cut;
    const float scaled = (relative / range) * 255.0f;
    if (options.float_precision) {
      above_cut(x, n, options.raw ? 0.0f : low, cut, mask);
      *threshold = scaled;
    } else {
      const int level = int(std::floor(std::min(std::max(scaled, -1.0f), 255.0f)));
      above_level(map, n, level, mask);
      *threshold = float(level);
    }
  }
}

void pas_batch(const float* cam, int64_t count, int h, int w, int height, int width, const Options& options,
               int threads, uint8_t* map, uint8_t* mask, float* threshold) {
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    thread_local Workspace space;
    const int64_t n = int64_t(height) * width;
    for (int64_t i; (i = next.fetch_add(1)) < count;)
      pas_map(cam + i * h * w, h, w, height, width, options, space, map + i * n, mask + i * n, threshold + i);
  };
  const int64_t extra = std::min<int64_t>(threads, count) - 1;
  std::vector<std::thread> pool;
  for (int64_t t = 0; t < extra; ++t) pool.emplace_back(work);
  work();
  for (auto& thread : pool) thread.join();
}

}  // namespace lidcam::pas
