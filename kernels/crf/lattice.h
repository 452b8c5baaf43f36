// The permutohedral lattice (Adams, Baek, Davis 2010) of an image's pixels, in pixel order.
#pragma once
#include <cstdint>
#include <memory>

#include "crf/buffer.h"

namespace lidcam::crf {

constexpr int kMaxDimension = 7;

enum class Normalization { none = 0, before = 1, after = 2, symmetric = 3 };

struct Lattice {
  int dimension = 0;
  int corners = 0;       // dimension + 1
  int stride = 0;        // floats per record
  bool before = false, after = false;  // whether values are normalised before the splat, after the slice
  int64_t pixels = 0;
  int32_t simplices = 0;
  int32_t vertices = 0;  // tables have vertices + 1 rows: row 0 is the vertex that does not exist
  float alpha = 1;       // factor of the blur
  bool wide = false;     // built with wide keys
  bool folded = false;   // records are those of fast.h
  // [pixels, stride]: the barycentric weights of the corners, the norm, and the bits of the int32 simplex. One stream,
  // as reading these is what takes the time. There is one block of pixels more than there are.
  Buffer<float> record;
  Buffer<int32_t> corner;      // [simplices, corners] table rows
  Buffer<int32_t> neighbor;    // [dimension + 1, 2, vertices] table rows

  size_t bytes() const;
};

// What the lattice is built over, one of two kinds. Features are divided by their standard deviations.
struct Features {
  int dimension = 0;
  int64_t pixels = 0;
  const float* rows = nullptr;     // [pixels, dimension], or:
  int32_t width = 0, height = 0;   // x / deviation[0], y / deviation[1] and, where there is an image,
  const uint8_t* image = nullptr;  // [height, width, 3] / deviation[2..4]
  float deviation[5] = {1, 1, 1, 1, 1};
};

// Throws std::invalid_argument when a feature is not finite or beyond the keys' range.
std::shared_ptr<Lattice> make_lattice(const Features& features, Normalization normalization, bool wide = false,
                                      bool folded = false);

// The normalised kernel applied to values [channels, pixels], as one pairwise term of mean field does.
void filter(const Lattice& lattice, const float* values, int channels, float* out);

}  // namespace lidcam::crf
