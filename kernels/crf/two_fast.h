// Mean field of two labels with sums in the fastest order, one channel (Q0 - Q1), over folded lattices (fold.h): near
// pydensecrf's result, not to the bit.
#pragma once
#include <vector>

#include "crf/fold.h"
#include "crf/term.h"

namespace lidcam::crf {

class TwoFast {
 public:
  TwoFast(const float* unary, int64_t pixels, const std::vector<Term>& terms, bool keep);

  // See mean_field.cpp.
  float step(bool first, float* q);
  void message();

 private:
  const TwoFastKernels& run_;
  const int64_t n_;
  std::vector<FastTerm> spatial_, bilateral_;
  std::vector<FastMemory> memory_;
  Buffer<float> apart_, kept_;  // u1 - u0; Q0 - Q1
};

}  // namespace lidcam::crf
