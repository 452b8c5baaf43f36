// From the features of pixels to their lattice.
#pragma once
#include <memory>

#include "crf/lattice.h"

namespace lidcam::crf {

// What a lattice is built over, one of two kinds. Features are divided by their standard deviations.
struct Features {
  int dimension = 0;
  int64_t pixels = 0;
  const float* rows = nullptr;     // [pixels, dimension], or:
  int32_t width = 0, height = 0;   // x / deviation[0], y / deviation[1] and, where there is an image,
  const uint8_t* image = nullptr;  // [height, width, 3] / deviation[2..4]
  float deviation[5] = {1, 1, 1, 1, 1};
};

// wide: with wide keys even where packed ones fit. folded: see fold.h.
// Throws std::invalid_argument when a feature is not finite or beyond the keys' range.
std::shared_ptr<Lattice> make_lattice(const Features& features, Normalization normalization, bool wide = false,
                                      bool folded = false);

}  // namespace lidcam::crf
