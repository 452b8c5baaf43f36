// Compiled once per instruction set.
#include "pas/loops.h"

#include <cstdint>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace lidcam::pas::LIDCAM_TARGET {
namespace {

#include "cpu/simd.inc"

using F = Native;
constexpr int kWidth = kLanes;
constexpr int kParts = 16 / kWidth;  // registers of sixteen pixels

// Bytes of sixteen pixels by multiplication with two factors around 255 / range; where the results differ, the division
// decides.
inline void quantise16(const F* v, float low, float range, float under, float over, uint8_t* out) {
  Ints bytes[kParts], differ = {};
  for (int i = 0; i < kParts; ++i) {
    const F d = v[i] - every(low);
    bytes[i] = truncated(d * every(under));
    differ |= bytes[i] != truncated(d * every(over));
  }
  if (__builtin_expect(any(differ), 0))
    for (int i = 0; i < kParts; ++i) bytes[i] = truncated(((v[i] - every(low)) / every(range)) * every(255.0f));
  store_bytes(out, bytes);
}

template <int T>
inline void across_taps(const float* in, const Span* spans, int count, const float* weight, int width, float* out) {
  for (int s = 0; s < count; ++s) {
    const Span& span = spans[s];
    float cell[T];
    for (int t = 0; t < T; ++t) cell[t] = in[span.source[t]];
    if (span.end - span.begin < 4) {
      for (int x = span.begin; x < span.end; ++x) {
        float v = cell[0] * weight[x];
        for (int t = 1; t < T; ++t) v = v + cell[t] * weight[int64_t(t) * width + x];
        out[x] = v;
      }
      continue;
    }
    // Whole registers: what goes beyond the span is written again by the next one.
    for (int x = span.begin; x < span.end; x += kWidth) {
      F v = every(cell[0]) * load<F>(weight + x);
      for (int t = 1; t < T; ++t) v = v + every(cell[t]) * load<F>(weight + int64_t(t) * width + x);
      store(out + x, v);
    }
  }
}

void across(const float* in, const Span* spans, int count, int taps, const float* weight, int width, float* out) {
  if (taps == 4)
    across_taps<4>(in, spans, count, weight, width, out);
  else
    across_taps<2>(in, spans, count, weight, width, out);
}

template <int T>
inline void down_taps(const float* rows, const Span* spans, int count, const float* weight, int height, int width,
                      float* out, float* low, float* high) {
  constexpr int kStep = 2 * kWidth;
  F lows = every(*low), highs = every(*high), lows2 = lows, highs2 = highs;
  float low1 = *low, high1 = *high;
  for (int s = 0; s < count; ++s) {
    const Span& span = spans[s];
    const float* in[T];
    for (int t = 0; t < T; ++t) in[t] = rows + int64_t(span.source[t]) * width;
    int x = 0;
    for (; x + kStep <= width; x += kStep) {
      F a[T], b[T];
      for (int t = 0; t < T; ++t) a[t] = load<F>(in[t] + x), b[t] = load<F>(in[t] + x + kWidth);
      for (int y = span.begin; y < span.end; ++y) {
        const F w = every(weight[y]);
        F v = a[0] * w, u = b[0] * w;
        for (int t = 1; t < T; ++t) {
          const F next = every(weight[int64_t(t) * height + y]);
          v = v + a[t] * next;
          u = u + b[t] * next;
        }
        float* row = out + int64_t(y) * width + x;
        store(row, v);
        store(row + kWidth, u);
        lows = smaller(v, lows);
        highs = larger(v, highs);
        lows2 = smaller(u, lows2);
        highs2 = larger(u, highs2);
      }
    }
    for (; x < width; ++x)
      for (int y = span.begin; y < span.end; ++y) {
        float v = in[0][x] * weight[y];
        for (int t = 1; t < T; ++t) v = v + in[t][x] * weight[int64_t(t) * height + y];
        out[int64_t(y) * width + x] = v;
        low1 = v < low1 ? v : low1;
        high1 = v > high1 ? v : high1;
      }
  }
  float lanes[2][kWidth];
  store(lanes[0], smaller(lows, lows2));
  store(lanes[1], larger(highs, highs2));
  for (int i = 0; i < kWidth; ++i) {
    low1 = lanes[0][i] < low1 ? lanes[0][i] : low1;
    high1 = lanes[1][i] > high1 ? lanes[1][i] : high1;
  }
  *low = low1;
  *high = high1;
}

void down(const float* rows, const Span* spans, int count, int taps, const float* weight, int height, int width,
          float* out, float* low, float* high) {
  if (taps == 4)
    down_taps<4>(rows, spans, count, weight, height, width, out, low, high);
  else
    down_taps<2>(rows, spans, count, weight, height, width, out, low, high);
}

// A byte from the reference's two roundings lies between those of factors 2^-21 below and above 255 / range: each
// product is within 2^-22 of the true value.
inline float factor(float range, int side) { return float(255.0 / double(range) * (1 + side * 0x1p-21)); }
inline bool fits_factors(float range) { return range > kMinRange && range < kMaxRange; }

void to_bytes(const float* x, int64_t n, float low, float range, uint8_t* out) {
  int64_t i = 0;
  if (fits_factors(range)) {
    const float under = factor(range, -1), over = factor(range, 1);
    for (; i + 16 <= n; i += 16) {
      F v[kParts];
      for (int k = 0; k < kParts; ++k) v[k] = load<F>(x + i + k * kWidth);
      quantise16(v, low, range, under, over, out + i);
    }
  }
  for (; i < n; ++i) out[i] = uint8_t(int32_t(((x[i] - low) / range) * 255.0f));
}

template <int T>
inline void span_extremes(const float* const* in, int x, const float* weight, int height, const Span& span, F* lows,
                          F* highs) {
  F a[T];
  for (int t = 0; t < T; ++t) a[t] = load<F>(in[t] + x);
  for (int y = span.begin; y < span.end; ++y) {
    F v = a[0] * every(weight[y]);
    for (int t = 1; t < T; ++t) v = v + a[t] * every(weight[int64_t(t) * height + y]);
    *lows = smaller(v, *lows);
    *highs = larger(v, *highs);
  }
}

// The extremes of what `down` would write. In a block of one register's columns and one span, no value leaves the range
// of its cells by more than a share of it (the negative weights of cubic interpolation sum to at most 0.1875): with the
// blocks around the extreme cells visited first, few others can hold an extreme.
template <int T>
inline void extremes_taps(const float* rows, const Span* spans, int count, const float* weight, int height, int width,
                          const Place* places, float* low, float* high) {
  const F share = every(T == 4 ? 0.1876f : 0.0001f), rounding = every(1e-6f);  // wider than the roundings
  const int blocks = width / kWidth;
  const float* in[T];
  F lows = every(*low), highs = every(*high), floor = lows, ceiling = highs;
  float low1 = *low, high1 = *high;
  const auto turn_to = [&](int s) {
    for (int t = 0; t < T; ++t) in[t] = rows + int64_t(spans[s].source[t]) * width;
  };
  for (int p = 0; p < 2; ++p) {
    int s = 0;
    while (s + 1 < count && spans[s].end <= places[p].y) ++s;
    const int block = places[p].x / kWidth;
    for (int j = s > 0 ? s - 1 : 0; j <= s + 1 && j < count; ++j) {
      turn_to(j);
      for (int i = block > 0 ? block - 1 : 0; i <= block + 1 && i < blocks; ++i)
        span_extremes<T>(in, i * kWidth, weight, height, spans[j], &lows, &highs);
    }
  }
  for (int s = 0; s < count; ++s) {
    floor = every(smallest_lane(lows));
    ceiling = every(largest_lane(highs));
    turn_to(s);
    for (int i = 0; i < blocks; ++i) {
      F under = load<F>(in[0] + i * kWidth), over = under;
      for (int t = 1; t < T; ++t) {
        const F v = load<F>(in[t] + i * kWidth);
        under = smaller(v, under);
        over = larger(v, over);
      }
      const F slack = (over - under) * share + larger(over, 0.0f - under) * rounding;
      if (any((under - slack < floor) | (ceiling < over + slack)))
        span_extremes<T>(in, i * kWidth, weight, height, spans[s], &lows, &highs);
    }
    for (int x = blocks * kWidth; x < width; ++x)
      for (int y = spans[s].begin; y < spans[s].end; ++y) {
        float v = in[0][x] * weight[y];
        for (int t = 1; t < T; ++t) v = v + in[t][x] * weight[int64_t(t) * height + y];
        low1 = v < low1 ? v : low1;
        high1 = v > high1 ? v : high1;
      }
  }
  const float low2 = smallest_lane(lows), high2 = largest_lane(highs);
  *low = low2 < low1 ? low2 : low1;
  *high = high2 > high1 ? high2 : high1;
}

void extremes(const float* rows, const Span* spans, int count, int taps, const float* weight, int height, int width,
              const Place* places, float* low, float* high) {
  if (taps == 4)
    extremes_taps<4>(rows, spans, count, weight, height, width, places, low, high);
  else
    extremes_taps<2>(rows, spans, count, weight, height, width, places, low, high);
}

template <int T>
inline void down_bytes_taps(const float* rows, const Span* spans, int count, const float* weight, int height, int width,
                            float low, float range, uint8_t* out) {
  const float under = factor(range, -1), over = factor(range, 1);
  for (int s = 0; s < count; ++s) {
    const Span& span = spans[s];
    const float* in[T];
    for (int t = 0; t < T; ++t) in[t] = rows + int64_t(span.source[t]) * width;
    int x = 0;
    for (; x + 16 <= width; x += 16) {
      F a[T][kParts];
      for (int t = 0; t < T; ++t)
        for (int k = 0; k < kParts; ++k) a[t][k] = load<F>(in[t] + x + k * kWidth);
      for (int y = span.begin; y < span.end; ++y) {
        F v[kParts];
        const F w = every(weight[y]);
        for (int k = 0; k < kParts; ++k) v[k] = a[0][k] * w;
        for (int t = 1; t < T; ++t) {
          const F next = every(weight[int64_t(t) * height + y]);
          for (int k = 0; k < kParts; ++k) v[k] = v[k] + a[t][k] * next;
        }
        quantise16(v, low, range, under, over, out + int64_t(y) * width + x);
      }
    }
    for (; x < width; ++x)
      for (int y = span.begin; y < span.end; ++y) {
        float v = in[0][x] * weight[y];
        for (int t = 1; t < T; ++t) v = v + in[t][x] * weight[int64_t(t) * height + y];
        out[int64_t(y) * width + x] = uint8_t(int32_t(((v - low) / range) * 255.0f));
      }
  }
}

void down_bytes(const float* rows, const Span* spans, int count, int taps, const float* weight, int height, int width,
                float low, float range, uint8_t* out) {
  if (taps == 4)
    down_bytes_taps<4>(rows, spans, count, weight, height, width, low, range, out);
  else
    down_bytes_taps<2>(rows, spans, count, weight, height, width, low, range, out);
}

#if defined(__AVX512BW__)
void count(const uint8_t* map, int64_t blocks, int64_t stride, int level, int64_t* below, int64_t* at_most) {
  const __m512i cut = _mm512_set1_epi8(char(level));
  int64_t less = 0, up_to = 0;
  for (int64_t i = 0; i < blocks; ++i) {
    const __m512i v = _mm512_loadu_si512(map + i * stride);
    less += __builtin_popcountll(_mm512_cmplt_epu8_mask(v, cut));
    up_to += __builtin_popcountll(_mm512_cmple_epu8_mask(v, cut));
  }
  *below = less;
  *at_most = up_to;
}
#else
void count(const uint8_t* map, int64_t blocks, int64_t stride, int level, int64_t* below, int64_t* at_most) {
  const uint8_t cut = uint8_t(level);
  int64_t less = 0, up_to = 0;
  for (int64_t i = 0; i < blocks;) {
    uint8_t lanes[2][64] = {};  // wraps after 255 blocks
    const int64_t end = i + 255 < blocks ? i + 255 : blocks;
    for (; i < end; ++i) {
      const uint8_t* block = map + i * stride;
      for (int k = 0; k < 64; ++k) {
        lanes[0][k] = uint8_t(lanes[0][k] + (block[k] < cut));
        lanes[1][k] = uint8_t(lanes[1][k] + (block[k] <= cut));
      }
    }
    for (int k = 0; k < 64; ++k) less += lanes[0][k], up_to += lanes[1][k];
  }
  *below = less;
  *at_most = up_to;
}
#endif

int next_byte(const uint8_t* map, int64_t n, int level) {
  const uint8_t cut = uint8_t(level);
  uint8_t best = 255;
  for (int64_t i = 0; i < n; ++i) {
    const uint8_t v = map[i] > cut ? map[i] : uint8_t(255);
    best = v < best ? v : best;
  }
  return best;
}

void above_level(const uint8_t* map, int64_t n, int level, uint8_t* mask) {
  if (level < 0) {
    for (int64_t i = 0; i < n; ++i) mask[i] = 1;
    return;
  }
  const uint8_t cut = uint8_t(level);
  for (int64_t i = 0; i < n; ++i) mask[i] = map[i] > cut;
}

void above_cut(const float* x, int64_t n, float low, float cut, uint8_t* mask) {
  for (int64_t i = 0; i < n; ++i) mask[i] = (x[i] - low) > cut;
}

}  // namespace

const Loops kLoops = {across, down, extremes, down_bytes, to_bytes, count, next_byte, above_level, above_cut};

}  // namespace lidcam::pas::LIDCAM_TARGET
