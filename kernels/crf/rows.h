// What the models of many labels share: rows of values in parts, see kernels.h.
#pragma once
#include <vector>

#include "crf/kernels.h"

namespace lidcam::crf {

constexpr size_t kStoredRows = size_t(1) << 27;  // floats of rearranged unary energies that are kept
constexpr float kPadding = -1e30f;               // the energy of labels that do not exist

// What a message of one term is multiplied by, from a number, a vector or a matrix as compatibility.
struct Compat {
  Buffer<float> factor;  // [width], 0 for labels that do not exist
  Buffer<float> matrix;  // [labels, width], or empty
  void set(const std::vector<float>& compat, int labels, int width);
};

// The largest change of the first `count` rows of a block; keeps the new.
float keep_rows(const float* now, float* kept, int width, int block, int count);

}  // namespace lidcam::crf
