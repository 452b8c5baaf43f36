// Mean field of two labels over folded lattices: see fast.h.
#pragma once
#include <memory>

#include "crf/fast.h"
#include "crf/mean_field.h"

namespace lidcam::crf {

class TwoFast {
 public:
  TwoFast(const float* unary, int64_t pixels, const std::vector<Term>& terms, bool keep);
  ~TwoFast();
  float step(bool first, float* q);  // as of the models in mean_field.cpp
  void message();

 private:
  struct Impl;
  const FastKernels& run_;
  const int64_t n_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lidcam::crf
