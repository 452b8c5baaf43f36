// The permutohedral lattice (Adams, Baek, Davis 2010) with pixels grouped by simplex.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

// Variants of one function per instruction set, chosen at load time. No variant contracts or reorders
// sums, so all of them give the same bits.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
#define LIDCAM_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define LIDCAM_CLONES
#endif

namespace lidcam::crf {

enum class Normalization { none = 0, before = 1, after = 2, symmetric = 3 };

struct Lattice {
  int dimension = 0;
  int64_t pixels = 0;
  int32_t simplices = 0;
  int32_t vertices = 0;           // value rows are vertices + 1: row 0 is the vertex that does not exist
  std::vector<int32_t> order;     // [pixels] grouped position -> pixel
  std::vector<int32_t> simplex;   // [pixels] simplex of a grouped position
  std::vector<int32_t> start;     // [simplices + 1]
  std::vector<int32_t> corner;    // [(D + 1), simplices] vertex row
  std::vector<float> weight;      // [(D + 1), pixels] barycentric weight, normalisation folded in
  std::vector<int32_t> neighbor;  // [(D + 1), vertices, 2]
  std::vector<float> pre, post;   // [pixels] in grouped order, or empty

  // values and spare: [(vertices + 1) * channels]. in, out: [pixels, channels], channels 1 or a
  // multiple of 8. Overwrites out.
  void filter(const float* in, float* out, int channels, float* values, float* spare) const;
};

// features: [pixels, dimension] row-major, already divided by their standard deviations. dimension 1 to 6.
// Throws std::invalid_argument when a feature is too large for the keys or not finite.
std::shared_ptr<Lattice> make_lattice(const float* features, int64_t pixels, int dimension, Normalization normalization);

}  // namespace lidcam::crf
