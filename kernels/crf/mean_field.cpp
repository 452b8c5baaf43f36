#include "crf/mean_field.h"

#include <algorithm>
#include <stdexcept>

#include "crf/kernels.h"
#include "crf/many_fast.h"
#include "crf/many_labels.h"
#include "crf/two_fast.h"

namespace lidcam::crf {
namespace {

constexpr int64_t kTwoBlock = 512;

struct Store {  // memory of one Field
  Buffer<float> values, spare, rows;
};

// Two labels with Potts terms.
class TwoLabels {
 public:
  TwoLabels(const float* unary, int64_t pixels, const std::vector<Term>& terms, bool keep)
      : run_(kernels()), unary_(unary), n_(pixels), fields_(terms.size()), stores_(terms.size()) {
    for (size_t i = 0; i < terms.size(); ++i) {
      const Lattice& t = *terms[i].lattice;
      stores_[i].values.allocate((size_t(t.vertices) + 1) * 2);
      stores_[i].spare.allocate((size_t(t.vertices) + 1) * 2);
      stores_[i].rows.allocate(size_t(t.simplices) * (t.dimension < 4 ? 8 : 16));
      fields_[i].lattice = &t;
      fields_[i].weight = terms[i].compat[0];
      fields_[i].values = stores_[i].values.data();
      fields_[i].spare = stores_[i].spare.data();
    }
    if (keep) {
      kept_.allocate(size_t(n_) * 2);
      kept_.fill(0);
    }
  }

  // Marginals from the unary energies and, unless it is the first time, the messages. Splats them, or writes them to
  // q [2, n] where that is not null. Returns the largest change where changes are kept.
  float step(bool first, float* q) {
    if (!q)
      for (Field& f : fields_) std::fill_n(f.spare, (size_t(f.lattice->vertices) + 1) * 2, 0.0f);
    alignas(64) float rows[2 * kTwoBlock] = {};
    float most = 0;
    for (int64_t from = 0; from < n_; from += kTwoBlock) {
      const int64_t count = std::min(kTwoBlock, n_ - from);
      for (int64_t p = 0; p < count; ++p) {
        rows[2 * p] = -unary_[from + p];
        rows[2 * p + 1] = -unary_[n_ + from + p];
      }
      if (!first)
        for (size_t i = 0; i < fields_.size(); ++i)
          run_.slice_pairs(*fields_[i].lattice, stores_[i].rows.data(), fields_[i].weight, from, count, rows);
      run_.softmax_pairs(rows, count);
      if (!kept_.empty()) {
        most = std::max(most, run_.moved(rows, kept_.data() + 2 * from, 2 * count));
        std::copy(rows, rows + 2 * count, kept_.data() + 2 * from);
      }
      if (q)
        for (int64_t p = 0; p < count; ++p) {
          q[from + p] = rows[2 * p];
          q[n_ + from + p] = rows[2 * p + 1];
        }
      else
        splat(rows, from, count);
    }
    return most;
  }

  void message() {
    for (size_t i = 0; i < fields_.size(); ++i)
      run_.expand_pairs(*fields_[i].lattice, run_.blur_pairs(*fields_[i].lattice, fields_[i].spare, fields_[i].values),
                        stores_[i].rows.data());
  }

 private:
  void splat(const float* rows, int64_t from, int64_t count) {
    size_t i = 0;
    for (; i + 1 < fields_.size(); i += 2) {
      const Field &a = fields_[i], &b = fields_[i + 1];
      if (a.lattice->dimension != 2 || b.lattice->dimension != 5) break;
      run_.splat_two(*a.lattice, *b.lattice, rows, from, count, a.spare, b.spare);
    }
    for (; i < fields_.size(); ++i) run_.splat_pairs(*fields_[i].lattice, rows, from, count, fields_[i].spare);
  }
  const Kernels& run_;
  const float* unary_;
  const int64_t n_;
  std::vector<Field> fields_;
  std::vector<Store> stores_;
  Buffer<float> kept_;
};

template <typename Model>
int infer(Model&& model, int iterations, float tolerance, float* q) {
  model.step(true, iterations == 0 ? q : nullptr);
  for (int done = 1; done <= iterations; ++done) {
    model.message();
    // With a tolerance the last step is known only afterwards; the messages are still there, so it is done again.
    const bool last = done == iterations;
    const float moved = model.step(false, last ? q : nullptr);
    if (!last && tolerance > 0 && moved <= tolerance) {
      model.step(false, q);
      return done;
    }
  }
  return iterations;
}

}  // namespace

int mean_field(const float* unary, int labels, int64_t pixels, const std::vector<Term>& terms, int iterations,
               float tolerance, float* q, int line) {
  if (!terms.empty() && terms[0].lattice->folded)
    return infer(TwoFast(unary, pixels, terms, tolerance > 0), iterations, tolerance, q);
  if (line > 0 && labels > 2 && !terms.empty() && ManyFast::fits(labels, pixels))
    return infer(ManyFast(unary, labels, pixels, line, terms, tolerance > 0), iterations, tolerance, q);
  bool potts = true;
  for (const Term& t : terms) potts = potts && t.compat.size() == 1;
  if (labels == 2 && potts) return infer(TwoLabels(unary, pixels, terms, tolerance > 0), iterations, tolerance, q);
  return infer(ManyLabels(unary, labels, pixels, terms, tolerance > 0), iterations, tolerance, q);
}

void filter(const Lattice& lattice, const float* values, int channels, float* out) {
  const Kernels& run = kernels();
  constexpr int kWidth = 8;
  Buffer<float> table((size_t(lattice.vertices) + 1) * kWidth), spare(table.size());
  alignas(64) float rows[kRows * kWidth], factor[kWidth];
  std::fill_n(factor, kWidth, 1.0f);
  for (int c = 0; c < channels; c += kWidth) {
    const int used = std::min(kWidth, channels - c);
    const float* in = values + c * lattice.pixels;
    float* to = out + c * lattice.pixels;
    Field field;
    field.lattice = &lattice;
    field.factor = factor;
    field.spare = table.data();
    table.fill(0);
    for (int64_t from = 0; from < lattice.pixels; from += kRows) {
      const int count = int(std::min<int64_t>(kRows, lattice.pixels - from));
      run.interleave(in + from, lattice.pixels, used, count, 1.0f, 0.0f, kWidth, kRows, rows);
      run.splat_many(&field, 1, rows, kWidth, kRows, from, count);
    }
    field.values = run.blur_many(lattice, table.data(), spare.data(), kWidth);
    for (int64_t from = 0; from < lattice.pixels; from += kRows) {
      const int count = int(std::min<int64_t>(kRows, lattice.pixels - from));
      std::fill_n(rows, kRows * kWidth, 0.0f);
      run.slice_many(&field, 1, rows, kWidth, kRows, from, count, rows);
      run.separate(rows, kWidth, used, kRows, count, lattice.pixels, to + from);
    }
  }
}

}  // namespace lidcam::crf
