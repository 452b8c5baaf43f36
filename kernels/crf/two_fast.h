// Mean field of two labels over folded lattices: see fast.h.
#pragma once
#include "crf/fast.h"
#include "crf/mean_field.h"

namespace lidcam::crf {

// Folds the norm into a lattice of dimension 2 or 5 that was built and not normalised.
void fold_lattice(Lattice& t, bool symmetric);

struct FastMemory {  // of one FastTerm
  Buffer<float> lines, table, spare;
  FastTerm serve(const Lattice& t, const float* records, float weight);
};

class TwoFast {
 public:
  TwoFast(const float* unary, int64_t pixels, const std::vector<Term>& terms, bool keep);
  float step(bool first, float* q);  // as of the models in mean_field.cpp
  void message();

 private:
  const FastKernels& run_;
  const int64_t n_;
  std::vector<FastTerm> spatial_, bilateral_;
  std::vector<FastMemory> memory_;
  Buffer<float> apart_, kept_;  // u1 - u0; Q0 - Q1
};

}  // namespace lidcam::crf
