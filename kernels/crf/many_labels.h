// Mean field for any number of labels and any compatibility: a pixel's and a vertex's values lie together, in rows.
#pragma once
#include "crf/mean_field.h"
#include "crf/rows.h"

namespace lidcam::crf {

class ManyLabels {
 public:
  ManyLabels(const float* unary, int labels, int64_t pixels, const std::vector<Term>& terms, bool keep);

  // Marginals from the unary energies and, unless it is the first time, the messages. Splats them, or writes them to
  // q [labels, n] where that is not null. Returns the largest change where changes are kept.
  float step(bool first, float* q);
  void message();

 private:
  int load(int64_t from, float* energy) const;
  struct Store {  // memory of one Field
    Buffer<float> values, spare;
    Compat compat;
  };
  const Kernels& run_;
  const float* unary_;
  const int labels_, width_, block_;
  const int64_t n_;
  bool stored_;  // all energies are rearranged once
  std::vector<Field> fields_;
  std::vector<Store> stores_;
  Buffer<float> scratch_, q_, energy_, kept_;
};

}  // namespace lidcam::crf
