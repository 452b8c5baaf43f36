// Every kernel under several states of the processor's floating point control register: the results do not depend on
// it, and it is as before afterwards, also after an error (but for the flags of exceptions, which any code around may
// set). Prints what was tried; ends with status 1 at the first mistake.
#include <xmmintrin.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <stdexcept>
#include <vector>

#include "components/components.h"
#include "cpu/isa.h"
#include "crf/build_lattice.h"
#include "crf/filter.h"
#include "crf/infer.h"
#include "metrics/level_boxes.h"
#include "pas/pas.h"

namespace {

using Values = std::vector<float>;

constexpr int kHeight = 23, kWidth = 31, kPixels = kHeight * kWidth;

// The default; rounding up, with subnormals taken for 0; rounding to 0, with flags that are set already.
constexpr unsigned kStates[] = {0x1F80, 0x1F80 | 0x4000 | 0x8000 | 0x0040, 0x1F80 | 0x6000 | 0x003D};

struct Kernel {
  const char* name;
  std::function<Values()> run;
};

// Inputs are made before the register is changed.
std::vector<uint8_t> picture() {
  std::vector<uint8_t> rgb(3 * kPixels);
  for (size_t i = 0; i < rgb.size(); ++i) rgb[i] = uint8_t(i * 7 / 3);
  return rgb;
}

Kernel crf_kernel(const char* name, int labels, bool fast) {
  std::mt19937 random(labels);
  std::uniform_real_distribution<float> energy(0, 90);  // confident: probabilities down to subnormal numbers
  Values unary(size_t(labels) * kPixels);
  for (float& v : unary) v = energy(random);
  return {name, [=, rgb = picture()] {
            std::vector<lidcam::crf::PairwiseTerm> terms(2);
            terms[0].deviation = {3, 3};
            terms[0].compat = {3};
            terms[1].deviation = {80, 80, 13, 13, 13};
            terms[1].compat = {10};
            Values q(unary.size());
            lidcam::crf::clear_spatial_cache();
            lidcam::crf::infer(rgb.data(), kHeight, kWidth, unary.data(), labels, terms, 4, 0, q.data(), fast);
            return q;
          }};
}

Kernel refused_kernel(const char* name) {
  return {name, [rgb = picture()] {
            try {
              const float tiny = 1e-6f;
              lidcam::crf::image_lattice(rgb.data(), kHeight, kWidth, {80, 80, tiny, tiny, tiny},
                                         lidcam::crf::Normalization::symmetric);
            } catch (const std::invalid_argument&) {
              return Values{1};
            }
            return Values{};
          }};
}

Kernel filter_kernel(const char* name) {
  Values rows(300), in(700);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = float(i % 17) * 0.37f;
  for (size_t i = 0; i < in.size(); ++i) in[i] = std::ldexp(1.0f, -int(i % 140));
  return {name, [=] {
            lidcam::crf::Features features;
            features.dimension = 3;
            features.pixels = 100;
            features.rows = rows.data();
            Values out(in.size());
            lidcam::crf::filter(*make_lattice(features, lidcam::crf::Normalization::symmetric), in.data(), 7,
                                out.data());
            return out;
          }};
}

Kernel pas_kernel(const char* name, double size, bool floats) {
  Values cam(3 * 6 * 5);
  for (size_t i = 0; i < cam.size(); ++i) cam[i] = float(size * double(i * i % 91));
  return {name, [=] {
            lidcam::pas::PasOptions options;
            options.float_precision = floats;
            Values result(3);
            std::vector<uint8_t> map(3 * kPixels), mask(3 * kPixels);
            lidcam::pas::pas_batch(cam.data(), 3, 6, 5, kHeight, kWidth, options, 2, map.data(), mask.data(),
                                   result.data());
            result.insert(result.end(), map.begin(), map.end());
            result.insert(result.end(), mask.begin(), mask.end());
            return result;
          }};
}

Kernel components_kernel(const char* name) {
  return {name, [rgb = picture()] {
            lidcam::components::Finder finder;
            Values out;
            for (const auto& c : finder.find(rgb.data(), kHeight, kWidth)) out.push_back(float(c.pixels));
            return out;
          }};
}

Kernel levels_kernel(const char* name) {
  return {name, [rgb = picture()] {
            const int32_t given[] = {-1, 20, 100, 255};
            const int64_t truth[] = {3, 4, 20, 18};
            Values out;
            for (const auto& r : lidcam::metrics::level_boxes(rgb.data(), kHeight, kWidth, given, 4, truth, 1)) {
              // As bits: a conversion would round as the caller does.
              for (const double v : {r.iou_largest, r.iou_all}) {
                float halves[2];
                std::memcpy(halves, &v, sizeof v);
                out.insert(out.end(), halves, halves + 2);
              }
            }
            return out;
          }};
}

int fail(const char* isa, const char* name, const char* what) {
  std::printf("%s, %s: %s\n", isa, name, what);
  return 1;
}

}  // namespace

int main() {
  const Kernel kernels[] = {
      crf_kernel("CRF of two labels", 2, false),
      crf_kernel("fast CRF of two labels", 2, true),
      crf_kernel("CRF of five labels", 5, false),
      crf_kernel("fast CRF of five labels", 5, true),
      filter_kernel("filter"),
      refused_kernel("a CRF that is refused"),
      pas_kernel("PaS", 0.37, false),
      pas_kernel("PaS of subnormal numbers", 1e-42, false),
      pas_kernel("PaS of subnormal numbers, in floats", 1e-44, true),
      components_kernel("components"),
      levels_kernel("level boxes"),
  };
  constexpr unsigned kFlags = 0x3F;
  int tried = 0;
  for (const char* isa : {"baseline", "avx2", "avx512"}) {
    if (!lidcam::cpu::use_isa(isa)) continue;
    for (const Kernel& kernel : kernels) {
      Values expected;
      for (const unsigned state : kStates) {
        _mm_setcsr(state);
        const Values result = kernel.run();
        const unsigned after = _mm_getcsr();
        _mm_setcsr(kStates[0]);
        if ((after ^ state) & ~kFlags) return fail(isa, kernel.name, "the control register has changed");
        if (state == kStates[0]) expected = result;
        const bool same =
            result.size() == expected.size() && std::memcmp(result.data(), expected.data(), 4 * result.size()) == 0;
        if (result.empty() || !same) return fail(isa, kernel.name, "the result depends on the caller");
        ++tried;
      }
    }
  }
  std::printf("%d calls\n", tried);
  return tried == 0;
}
