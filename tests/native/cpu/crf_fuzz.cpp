// Random sizes, labels, deviations and values through the CRF's C++ entry points, for the sanitizers.
// Usage: crf_fuzz FIRST_SEED SEEDS. Ends with status 1 and a line where a result is wrong.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "crf/build_lattice.h"
#include "crf/filter.h"
#include "crf/infer.h"

using namespace lidcam::crf;

namespace {

struct Dice {
  std::mt19937 engine;
  int whole(int low, int high) { return std::uniform_int_distribution<int>(low, high)(engine); }
  float real(float low, float high) { return std::uniform_real_distribution<float>(low, high)(engine); }
  bool once_in(int n) { return whole(1, n) == 1; }
};

float strange(Dice& dice) {
  const float values[] = {std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity(),
                          1e30f,
                          -1e30f,
                          1e-40f,
                          0.0f};
  return values[dice.whole(0, 6)];
}

int fail(unsigned seed, const char* what) {
  std::printf("seed %u: %s\n", seed, what);
  return 1;
}

bool distributions(const std::vector<float>& q, int labels, size_t pixels) {
  for (size_t p = 0; p < pixels; ++p) {
    double sum = 0;
    for (int l = 0; l < labels; ++l) sum += q[l * pixels + p];
    if (!(std::fabs(sum - 1) < 1e-4)) return false;
  }
  return true;
}

// Images: refused with std::invalid_argument, or a distribution at every pixel.
int fuzz_images(unsigned seed, Dice& dice) {
  const int height = dice.whole(1, 23), width = dice.whole(1, 37), iterations = dice.whole(0, 3);
  const int labels = dice.once_in(3) ? 2 : dice.whole(2, dice.once_in(4) ? 70 : 34);
  const size_t pixels = size_t(height) * width;
  std::vector<uint8_t> image(pixels * 3);
  for (uint8_t& v : image) v = uint8_t(dice.whole(0, 255));
  std::vector<float> unary(pixels * labels), q(pixels * labels);
  for (float& v : unary) v = dice.real(-20, 20);
  bool odd = dice.once_in(8);
  if (odd) unary[size_t(dice.whole(0, int(unary.size()) - 1))] = strange(dice);
  std::vector<PairwiseTerm> terms(size_t(dice.whole(0, 3)));
  for (PairwiseTerm& term : terms) {
    term.deviation.resize(dice.once_in(2) ? 2 : 5);
    for (float& v : term.deviation) v = std::exp(dice.real(-7, 7));
    if (dice.once_in(10)) {
      term.deviation[0] = strange(dice);
      odd = true;
    }
    const int kind = dice.whole(0, 2);
    term.compat.resize(kind == 0 ? 1 : kind == 1 ? size_t(labels) : size_t(labels) * labels);
    for (float& v : term.compat) v = kind == 0 ? dice.real(0, 10) : dice.real(-3, 3);
    term.normalization = Normalization(dice.whole(0, 3));
  }
  const float tolerance = dice.once_in(3) ? dice.real(0, 0.5f) : 0.0f;
  try {
    const bool with_image = !dice.once_in(10);
    infer(with_image ? image.data() : nullptr, height, width, unary.data(), labels, terms, iterations, tolerance,
          q.data(), dice.once_in(2));
    if (!odd && !distributions(q, labels, pixels)) return fail(seed, "Q is no distribution");
  } catch (const std::invalid_argument&) {
  }
  return 0;
}

// Lattices over any features: wide and packed keys must agree.
int fuzz_features(unsigned seed, Dice& dice) {
  Features f;
  f.dimension = dice.whole(0, 9);
  f.pixels = dice.whole(dice.once_in(20) ? 0 : 1, 300);
  const float size = std::exp(dice.real(-5, 16));
  std::vector<float> rows(size_t(f.pixels) * f.dimension + 1);
  for (float& v : rows) v = dice.real(-size, size);
  if (dice.once_in(5)) rows[0] = strange(dice);
  f.rows = rows.data();
  const Normalization kind = Normalization(dice.whole(0, 3));
  const int channels = dice.whole(1, 11);
  try {
    const auto lattice = make_lattice(f, kind), wide = make_lattice(f, kind, true);
    std::vector<float> in(size_t(f.pixels) * channels), a(in.size()), b(in.size());
    for (float& v : in) v = dice.real(-1, 1);
    filter(*lattice, in.data(), channels, a.data());
    filter(*wide, in.data(), channels, b.data());
    for (size_t i = 0; i < a.size(); ++i)
      if (!(a[i] == b[i]) || !std::isfinite(a[i])) return fail(seed, "wide and packed keys differ");
  } catch (const std::invalid_argument&) {
  }
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  const unsigned first = count > 1 ? unsigned(std::atoi(arguments[1])) : 0;
  const unsigned seeds = count > 2 ? unsigned(std::atoi(arguments[2])) : 100;
  for (unsigned seed = first; seed < first + seeds; ++seed) {
    Dice dice{std::mt19937(seed)};
    if (seed % 2 ? fuzz_images(seed, dice) : fuzz_features(seed, dice)) return 1;
  }
  clear_spatial_cache();
  std::printf("%u seeds\n", seeds);
  return 0;
}
