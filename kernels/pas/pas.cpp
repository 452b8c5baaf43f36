#include "pas/pas.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/float_mode.h"
#include "cpu/memory.h"
#include "cpu/threads.h"

namespace lidcam::pas {
namespace {

constexpr int64_t kScale = 100000;

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

// The two bytes around the percentile. A sample gives a guess; counting below and up to it proves it, or says where to
// look next. Cheaper than a histogram, which adds one byte at a time.
struct Bytes {
  int low, next;
};

Bytes ranked_bytes(const uint8_t* map, int64_t n, const Rank& r) {
  constexpr int64_t kBlock = 64, kSample = 128;
  const Loops& loop = loops();
  const int64_t blocks = n / kBlock;
  const auto count_all = [&](int level, int64_t* below, int64_t* at_most) {
    loop.count(map, blocks, kBlock, level, below, at_most);
    for (int64_t i = blocks * kBlock; i < n; ++i) *below += map[i] < level, *at_most += map[i] <= level;
  };
  int guess = 128;
  // The stride is not a multiple of a likely width: the sample comes from all columns.
  if (const int64_t stride = n / kSample - 37; stride >= kBlock) {
    const double share = double(r.low) / double(n);
    int first = 0, last = 255;
    while (first < last) {
      guess = (first + last) / 2;
      int64_t below, at_most;
      loop.count(map, kSample, stride, guess, &below, &at_most);
      if (double(at_most) > share * double(kSample * kBlock))
        last = guess;
      else
        first = guess + 1;
    }
    guess = first;
  }
  int first = 0, last = 255;  // the byte sought is first to last
  for (int tries = 0;; ++tries) {
    int64_t below, at_most;
    count_all(guess, &below, &at_most);
    if (below <= r.low && r.low < at_most) return {guess, at_most > r.next ? guess : loop.next_byte(map, n, guess)};
    // As many levels away as there are pixels missing, if its neighbours are as frequent as this one.
    const int64_t here = std::max<int64_t>(at_most - below, 1);
    int64_t next;
    if (below > r.low) {
      last = guess - 1;
      next = guess - 1 - (below - 1 - r.low) / here;
    } else {
      first = guess + 1;
      next = guess + 1 + (r.low - at_most) / here;
    }
    guess = tries < 3 ? int(std::clamp<int64_t>(next, first, last)) : (first + last) / 2;
  }
}

double byte_standard(const uint8_t* map, int64_t n, double percentile) {
  const Rank r = rank_of(percentile, n);
  const Bytes bytes = ranked_bytes(map, n, r);
  return double(bytes.low * kScale + (bytes.next - bytes.low) * r.remainder) / double(kScale);
}

// A percentile of x - low. Bytes rise with it, so only the values of the two bytes around the percentile are ordered.
float float_standard(const float* x, int64_t n, float low, const uint8_t* map, double percentile,
                     std::vector<float>& values) {
  const Rank r = rank_of(percentile, n);
  const Bytes bytes = ranked_bytes(map, n, r);
  int64_t below = 0;
  values.clear();
  for (int64_t i = 0; i < n; ++i) {
    below += map[i] < bytes.low;
    if (map[i] == bytes.low || map[i] == bytes.next) values.push_back(x[i] - low);
  }
  const int64_t at = r.low - below, next = r.next - below;
  std::nth_element(values.begin(), values.begin() + at, values.end());
  const float a = values[at];
  const float b = next == at ? a : *std::min_element(values.begin() + next, values.end());
  return a + (b - a) * float(double(r.remainder) / double(kScale));
}

// Releases memory beyond what a thread should keep.
void trim(std::vector<float>& values) {
  constexpr size_t kKept = size_t(1) << 20;  // floats
  if (values.capacity() > kKept) std::vector<float>().swap(values);
}

}  // namespace

void Taps::make(int in, int out, bool is_linear) {
  if (in == n_in && out == n_out && is_linear == linear && taps) return;
  n_in = in, n_out = out, linear = is_linear, taps = is_linear ? 2 : 4;
  spans.clear();
  weight.assign(size_t(taps) * out + kPad, 0.0f);
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
    Span span{int(i), int(i) + 1, {}};
    for (int k = 0; k < taps; ++k) {
      span.source[k] = int(std::clamp<int64_t>(base + k - (is_linear ? 0 : 1), 0, in - 1));
      weight[size_t(k) * out + i] = float(ws[k]);
    }
    if (!spans.empty() && std::equal(span.source, span.source + taps, spans.back().source))
      spans.back().end = int(i) + 1;
    else
      spans.push_back(span);
  }
}

void pas_map(const float* cam, int h, int w, int height, int width, const PasOptions& options, Workspace& space,
             uint8_t* map, uint8_t* mask, float* threshold) {
  const cpu::FloatMode mode(cpu::Subnormals::keep);  // the reference keeps them
  const int64_t n = int64_t(height) * width, n_raw = int64_t(h) * w;
  // A copy: where another thread changes the array, checks would not hold for what is computed.
  cpu::Buffer<float> cells(n_raw);
  std::copy_n(cam, n_raw, cells.data());
  cam = cells.data();
  const auto nothing = [&] {
    std::memset(map, 0, n);
    std::memset(mask, 0, n);
    *threshold = 0;
  };
  float largest = 0, first = cam[0];
  bool even = true;
  for (int64_t i = 0; i < n_raw; ++i) {
    if (!std::isfinite(cam[i])) return nothing();
    largest = std::max(largest, std::fabs(cam[i]));
    even = even && cam[i] == first;
  }
  if (even) return nothing();

  space.across.make(w, width, options.linear);
  space.down.make(h, height, options.linear);
  cpu::Buffer<float> resized_rows(size_t(h) * width + kPad), resized;
  const Loops& loop = loops();
  const Taps &across = space.across, &down = space.down;
  for (int y = 0; y < h; ++y)
    loop.across(cam + size_t(y) * w, across.spans.data(), int(across.spans.size()), across.taps, across.weight.data(),
                width, resized_rows.data() + size_t(y) * width);
  const float* rows = resized_rows.data();
  const bool in_bytes = !options.raw && !options.float_precision;
  const float* x = nullptr;  // the resized map, where more than its bytes is needed
  float low = INFINITY, high = -INFINITY;
  const auto resize_down = [&] {
    resized.allocate(n);
    x = resized.data();
    low = INFINITY, high = -INFINITY;
    loop.down(rows, down.spans.data(), int(down.spans.size()), down.taps, down.weight.data(), height, width,
              resized.data(), &low, &high);
  };
  if (in_bytes && !options.normalize && largest < 1e30f) {
    const auto [lowest, highest] = std::minmax_element(cam, cam + n_raw);
    const auto place = [&](const float* cell) {
      const int64_t y = (cell - cam) / w, x = (cell - cam) % w;
      return Place{int((2 * y + 1) * height / (2 * h)), int((2 * x + 1) * width / (2 * w))};
    };
    const Place places[2] = {place(lowest), place(highest)};
    loop.extremes(rows, down.spans.data(), int(down.spans.size()), down.taps, down.weight.data(), height, width, places,
                  &low, &high);
    if (!(high - low > kMinRange && high - low < kMaxRange)) resize_down();
  } else {
    resize_down();
  }
  if (x && largest > 1e37f && overflows(x, n)) return nothing();
  const float range = high - low;
  if (!std::isfinite(range) || range == 0) return nothing();

  const double theta64 = std::nearbyint(options.theta * 1e6) / 1e6;
  if (x)
    loop.to_bytes(x, n, low, range, map);
  else
    loop.down_bytes(rows, down.spans.data(), int(down.spans.size()), down.taps, down.weight.data(), height, width, low,
                    range, map);
  double standard_bytes = 0;
  float standard;
  if (in_bytes) {
    standard_bytes = byte_standard(map, n, options.percentile);
    standard = float(standard_bytes);
  } else {
    if (options.raw) {
      space.order.assign(cam, cam + n_raw);
      standard = float_standard(space.order, options.percentile);
    } else {
      standard = float_standard(x, n, low, map, options.percentile, space.order);
    }
    trim(space.order);
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
    loop.above_level(map, n, level, mask);
    *threshold = float(level);
  } else if (in_bytes) {
    const int level = int(theta64 * standard_bytes);
    loop.above_level(map, n, level, mask);
    *threshold = float(level);
  } else {
    const float cut = float(theta64) * standard;
    const float relative = options.raw ? cut - low : cut;
    const float scaled = (relative / range) * 255.0f;
    if (options.float_precision) {
      loop.above_cut(x, n, options.raw ? 0.0f : low, cut, mask);
      *threshold = scaled;
    } else {
      const int level = int(std::floor(std::min(std::max(scaled, -1.0f), 255.0f)));
      loop.above_level(map, n, level, mask);
      *threshold = float(level);
    }
  }
}

void pas_batch(const float* cam, int64_t count, int h, int w, int height, int width, const PasOptions& options,
               int threads, uint8_t* map, uint8_t* mask, float* threshold) {
  const int64_t n = int64_t(height) * width;
  cpu::for_each(count, threads, [&](int64_t i) {
    thread_local Workspace space;
    pas_map(cam + i * h * w, h, w, height, width, options, space, map + i * n, mask + i * n, threshold + i);
  });
}

}  // namespace lidcam::pas
