// A pairwise term of a dense CRF.
#pragma once
#include <memory>
#include <vector>

#include "crf/lattice.h"

namespace lidcam::crf {

struct Term {
  std::shared_ptr<const Lattice> lattice;
  std::vector<float> compat;  // 1 value: a Potts weight; L: a diagonal; L * L: a matrix (symmetric)
};

}  // namespace lidcam::crf
