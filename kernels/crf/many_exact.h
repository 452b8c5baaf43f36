// Mean field for any number of labels and any compatibility, sums in the order of pydensecrf. The values of a pixel,
// and of a vertex, lie together in a row.
#pragma once
#include <vector>

#include "crf/rows.h"
#include "crf/term.h"

namespace lidcam::crf {

class ManyExact {
 public:
  ManyExact(const float* unary, int labels, int64_t pixels, const std::vector<Term>& terms, bool keep);

  // See mean_field.cpp.
  float step(bool first, float* q);
  void message();

 private:
  int load(int64_t from, float* energy) const;
  struct Store {  // memory of one Field
    Buffer<float> values, spare;
    Compat compat;
  };
  const ManyExactKernels& run_;
  const float* unary_;
  const int labels_, width_, block_;
  const int64_t n_;
  bool stored_;  // all energies are rearranged once
  std::vector<Field> fields_;
  std::vector<Store> stores_;
  Buffer<float> scratch_, q_, energy_, kept_;
};

}  // namespace lidcam::crf
