// Mean field of two labels with Potts terms, sums in the order of pydensecrf.
#pragma once
#include <vector>

#include "crf/kernels.h"
#include "crf/term.h"

namespace lidcam::crf {

class TwoExact {
 public:
  TwoExact(const float* unary, int64_t pixels, const std::vector<Term>& terms, bool keep);

  // See mean_field.cpp.
  float step(bool first, float* q);
  void message();

 private:
  struct Store {  // memory of one Field
    Buffer<float> values, spare, rows;
  };
  void splat(const float* rows, int64_t from, int64_t count);

  const TwoExactKernels& run_;
  const float* unary_;
  const int64_t n_;
  std::vector<Field> fields_;
  std::vector<Store> stores_;
  Buffer<float> kept_;
};

}  // namespace lidcam::crf
