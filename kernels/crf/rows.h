// What the models of many labels share: rows of values in parts, see kernels.h.
#pragma once
#include <vector>

#include "crf/kernels.h"
#include "crf/sweep.h"

namespace lidcam::crf {

constexpr size_t kStoredRows = size_t(1) << 27;  // floats of rearranged unary energies that are kept
constexpr float kPadding = -3.4e38f;             // the energy of labels that do not exist: below all others

// What a message of one term is multiplied by, from a number, a vector or a matrix as compatibility.
struct Compat {
  Buffer<float> factor;  // [width], 0 for labels that do not exist
  Buffer<float> matrix;  // [labels, width], or empty
  void set(const std::vector<float>& compat, int labels, int width);
  // Multiplies the rows of a table by the matrix, where there is one. scratch: [2, width].
  void apply(float* table, const Lattice& t, int labels, int width, float* scratch) const;
};

// Blurs a table of rows of `width`, part by part. blur(axis, first, count, part, lanes, from, to): the part begins at
// label `part` and has `lanes` labels. Returns the table, one of both, that holds the result.
template <typename Blur>
float* blur_rows(const Lattice& t, int width, float* table, float* spare, Blur&& blur) {
  const size_t rows = size_t(t.vertices) + 1;
  float* result = table;
  for (int part = 0; part < width; part += 16) {
    const int lanes = part + 16 <= width ? 16 : 8;
    float* const from_part = table + part * rows;
    float* const done = blur_axes(t, from_part, spare + part * rows,
                                  [&](int axis, int64_t first, int64_t count, const float* from, float* to) {
                                    blur(axis, first, count, part, lanes, from, to);
                                  });
    result = done == from_part ? table : spare;
  }
  return result;
}

// The largest change of the first `count` rows of a block; keeps the new.
float keep_rows(const float* now, float* kept, int width, int block, int count);

}  // namespace lidcam::crf
