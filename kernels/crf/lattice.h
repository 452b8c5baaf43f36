// The permutohedral lattice (Adams, Baek and Davis 2010) of an image's pixels, in the order of the pixels.
#pragma once
#include <cstddef>
#include <cstdint>

#include "cpu/memory.h"

namespace lidcam::crf {

using cpu::Buffer;

constexpr int kMaxDimension = 7;

enum class Normalization { none = 0, before = 1, after = 2, symmetric = 3 };

struct Lattice {
  int dimension = 0;
  int corners = 0;                     // dimension + 1
  int stride = 0;                      // floats per record
  bool before = false, after = false;  // whether values are normalised before the splat, after the slice
  int64_t pixels = 0;
  int32_t simplices = 0;
  int32_t vertices = 0;  // tables have vertices + 1 rows: row 0 is the vertex that does not exist
  float alpha = 1;       // factor of the blur
  bool wide = false;     // built with wide keys
  bool folded = false;   // records are those of fold.h
  // [pixels, stride]: the barycentric weights of the corners, the norm, and the bits of the int32 simplex. They are one
  // stream, since reading them is what takes the time. There is room for one block of pixels more.
  Buffer<float> record;
  Buffer<int32_t> corner;    // [simplices, corners] table rows
  Buffer<int32_t> neighbor;  // [dimension + 1, 2, vertices] table rows

  size_t bytes() const { return record.bytes() + corner.bytes() + neighbor.bytes(); }
};

}  // namespace lidcam::crf
