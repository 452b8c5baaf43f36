// libFuzzer: bytes as a call of one of the C++ entry points, under the sanitizers. Where there are two ways to a result
// they must agree. Build and run: tests/native/cpu/libfuzzer.py.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "components/components.h"
#include "crf/build_lattice.h"
#include "crf/filter.h"
#include "crf/infer.h"
#include "metrics/histogram.h"
#include "metrics/level_boxes.h"
#include "pas/pas.h"

namespace {

// Reads values from the front of the input; zeros after its end.
struct Input {
  const uint8_t* at;
  size_t left;

  template <class T>
  T take() {
    T value{};
    const size_t n = left < sizeof(T) ? left : sizeof(T);
    if (n) std::memcpy(&value, at, n);
    at += n;
    left -= n;
    return value;
  }
  int whole(int low, int high) { return low + int(take<uint16_t>() % unsigned(high - low + 1)); }
  template <class T>
  std::vector<T> many(size_t count) {
    std::vector<T> values(count);
    const size_t n = left < count * sizeof(T) ? left : count * sizeof(T);
    if (n) std::memcpy(values.data(), at, n);
    at += n;
    left -= n;
    // What is missing repeats what there is, so that short inputs make more than a corner.
    for (size_t i = n / sizeof(T), period = i; period && i < count; ++i) values[i] = values[i - period];
    return values;
  }
};

void require(bool holds) {
  if (!holds) std::abort();
}

void components(Input& in) {
  const int h = in.whole(1, 40), w = in.whole(1, 200);
  const auto mask = in.many<uint8_t>(size_t(h) * w);
  static lidcam::components::Finder finder;
  const auto found = finder.find(mask.data(), h, w);
  std::vector<int32_t> labels(mask.size(), -1);
  finder.paint(labels.data(), h, w);
  std::vector<int64_t> pixels(found.size() + 1);
  for (size_t i = 0; i < mask.size(); ++i) {
    require(labels[i] >= 0 && size_t(labels[i]) <= found.size() && (labels[i] > 0) == (mask[i] != 0));
    ++pixels[size_t(labels[i])];
  }
  for (size_t i = 0; i < found.size(); ++i) {
    const auto& c = found[i];
    require(c.pixels == pixels[i + 1] && 0 <= c.x0 && c.x0 < c.x1 && c.x1 <= w && 0 <= c.y0 && c.y0 < c.y1 &&
            c.y1 <= h);
    require(lidcam::components::twice_contour_area(mask.data(), h, w, c.seed_x, c.seed_y) >= 0);
  }
  for (const bool by_pixels : {false, true}) {
    const int best = finder.largest(mask.data(), h, w, by_pixels);
    require(best >= -1 && best < int(found.size()) && (best == -1) == found.empty());
    std::vector<uint8_t> one(mask.size());
    finder.paint_one(best, one.data(), h, w);
    for (size_t i = 0; i < one.size(); ++i) require(one[i] == (best >= 0 && labels[i] == best + 1));
  }
  finder.trim(size_t(in.take<uint16_t>()));
}

void histogram(Input& in) {
  const size_t count = in.take<uint16_t>() % 3000;
  const auto map = in.many<uint8_t>(count), mask = in.many<uint8_t>(count);
  std::vector<int64_t> out(512), wanted(512);
  const bool allowed = lidcam::metrics::pair_histogram(map.data(), mask.data(), count, out.data());
  bool good = true;
  for (size_t i = 0; i < count; ++i) {
    good &= mask[i] < 2 || mask[i] == 255;
    if (mask[i] < 2) ++wanted[size_t(mask[i]) * 256 + map[i]];
  }
  require(allowed == good && (!good || out == wanted));
}

void levels(Input& in) {
  using namespace lidcam::metrics;
  const int h = in.whole(1, 24), w = in.whole(1, 80), count = in.whole(1, 20), boxes = in.whole(1, 3);
  std::vector<int32_t> wanted;
  for (int i = 0; i < count; ++i) wanted.push_back(in.whole(-1, 255));
  std::vector<int64_t> truth;
  for (int i = 0; i < 4 * boxes; ++i) truth.push_back(in.take<int16_t>());
  const auto map = in.many<uint8_t>(size_t(h) * w);
  const auto runs = level_boxes(map.data(), h, w, wanted.data(), count, truth.data(), boxes, Method::kRuns);
  const auto tree = level_boxes(map.data(), h, w, wanted.data(), count, truth.data(), boxes, Method::kTree);
  for (int i = 0; i < count; ++i) {
    const auto &a = runs[size_t(i)], &b = tree[size_t(i)];
    require(a.twice_area == b.twice_area && a.contours == b.contours);
    require(a.largest.x0 == b.largest.x0 && a.largest.y0 == b.largest.y0);
    require(a.largest.x1 == b.largest.x1 && a.largest.y1 == b.largest.y1);
    require(!(a.iou_largest < b.iou_largest) && !(b.iou_largest < a.iou_largest));
    require(!(a.iou_all < b.iou_all) && !(b.iou_all < a.iou_all));
  }
}

void pas(Input& in) {
  const int h = in.whole(1, 20), w = in.whole(1, 20), height = in.whole(1, 70), width = in.whole(1, 70);
  const int maps = in.whole(1, 3);
  lidcam::pas::PasOptions options;
  const uint8_t flags = in.take<uint8_t>();
  const double percentile = in.take<uint8_t>() % 2 ? in.take<double>() : in.whole(0, 100000) / 1000.0;
  const double theta = in.whole(0, 1000) / 1000.0;
  try {
    options = lidcam::pas::make_options(percentile, theta, flags & 1 ? "threshold" : "normalize",
                                        flags & 2 ? "uint8" : "float", flags & 4 ? "resized" : "raw",
                                        flags & 8 ? "cubic" : "linear");
  } catch (const std::invalid_argument&) {
    return;
  }
  auto cam = in.many<float>(size_t(maps) * h * w);
  if (flags & 16)  // as networks give them; else any bits
    for (float& v : cam) v = std::isfinite(v) ? std::fmod(v, 100.0f) : 0.0f;
  const size_t pixels = size_t(height) * width;
  std::vector<uint8_t> map(maps * pixels), mask(maps * pixels), map1(pixels), mask1(pixels);
  std::vector<float> threshold(size_t(maps), 0.0f);
  lidcam::pas::pas_batch(cam.data(), maps, h, w, height, width, options, 1 + flags % 3, map.data(), mask.data(),
                         threshold.data());
  for (const uint8_t v : mask) require(v < 2);
  static lidcam::pas::Workspace space;
  float threshold1 = 0;
  lidcam::pas::pas_map(cam.data(), h, w, height, width, options, space, map1.data(), mask1.data(), &threshold1);
  require(std::memcmp(map.data(), map1.data(), pixels) == 0 && std::memcmp(mask.data(), mask1.data(), pixels) == 0);
  require(std::memcmp(&threshold[0], &threshold1, sizeof(float)) == 0);
}

void crf(Input& in) {
  using namespace lidcam::crf;
  const int h = in.whole(1, 10), w = in.whole(1, 12), labels = in.whole(2, 6), iterations = in.whole(0, 2);
  const size_t pixels = size_t(h) * w;
  std::vector<PairwiseTerm> terms(size_t(in.whole(0, 2)));
  for (auto& term : terms) {
    term.deviation = in.many<float>(in.take<uint8_t>() % 2 ? 2 : 5);
    const int kind = in.whole(0, 2);
    term.compat = in.many<float>(kind == 0 ? 1 : kind == 1 ? size_t(labels) : size_t(labels) * labels);
    if (kind == 2)
      for (int i = 0; i < labels; ++i)
        for (int j = 0; j < i; ++j) term.compat[size_t(i) * labels + j] = term.compat[size_t(j) * labels + i];
    term.normalization = Normalization(in.whole(0, 3));
  }
  const uint8_t flags = in.take<uint8_t>();
  const auto image = in.many<uint8_t>(pixels * 3);
  const auto unary = in.many<float>(pixels * labels);
  std::vector<float> q(pixels * labels);
  try {
    infer(flags & 1 ? image.data() : nullptr, h, w, unary.data(), labels, terms, iterations, flags & 2 ? 0.1f : 0.0f,
          q.data(), flags & 4);
    for (const float v : q) require(std::isfinite(v) && v >= 0 && v <= 1.001f);
  } catch (const std::invalid_argument&) {
  }
}

void lattice(Input& in) {
  using namespace lidcam::crf;
  Features f;
  f.dimension = in.whole(0, 9);
  f.pixels = in.whole(0, 60);
  const auto rows = in.many<float>(size_t(f.pixels) * f.dimension + 1);
  f.rows = rows.data();
  const int channels = in.whole(1, 9);
  const Normalization kind = Normalization(in.whole(0, 3));
  const auto values = in.many<float>(size_t(f.pixels) * channels);
  bool finite = true;
  for (const float v : values) finite &= std::isfinite(v) && std::fabs(v) < 1e6f;
  try {
    const auto packed = make_lattice(f, kind), wide = make_lattice(f, kind, true);
    std::vector<float> a(values.size()), b(values.size());
    filter(*packed, values.data(), channels, a.data());
    filter(*wide, values.data(), channels, b.data());
    for (size_t i = 0; finite && i < a.size(); ++i) require(a[i] == b[i]);
  } catch (const std::invalid_argument&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input in{data, size};
  void (*const calls[])(Input&) = {components, histogram, levels, pas, crf, lattice};
  calls[in.take<uint8_t>() % 6](in);
  return 0;
}
