#include "crf/two_exact.h"

#include <algorithm>

#include "crf/sweep.h"

namespace lidcam::crf {
namespace {

constexpr int64_t kTwoBlock = 512;

}  // namespace

TwoExact::TwoExact(const float* unary, int64_t pixels, const std::vector<Term>& terms, bool keep)
    : run_(kernels().two_exact), unary_(unary), n_(pixels), fields_(terms.size()), stores_(terms.size()) {
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

float TwoExact::step(bool first, float* q) {
  if (!q)
    for (Field& f : fields_) std::fill_n(f.spare, (size_t(f.lattice->vertices) + 1) * 2, 0.0f);
  alignas(64) float rows[2 * kTwoBlock] = {};
  float change = 0;
  for (int64_t from = 0; from < n_; from += kTwoBlock) {
    if (from % kChunk == 0) cpu::check_stop();
    const int64_t count = std::min(kTwoBlock, n_ - from);
    for (int64_t p = 0; p < count; ++p) {
      rows[2 * p] = -unary_[from + p];
      rows[2 * p + 1] = -unary_[n_ + from + p];
    }
    if (!first)
      for (size_t i = 0; i < fields_.size(); ++i)
        run_.slice(*fields_[i].lattice, stores_[i].rows.data(), fields_[i].weight, from, count, rows);
    run_.softmax(rows, count);
    if (!kept_.empty()) {
      change = std::max(change, kernels().moved(rows, kept_.data() + 2 * from, 2 * count));
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
  return change;
}

void TwoExact::message() {
  for (size_t i = 0; i < fields_.size(); ++i) {
    const Lattice& t = *fields_[i].lattice;
    const float* blurred = blur_axes(t, fields_[i].spare, fields_[i].values,
                                     [&](int axis, int64_t first, int64_t count, const float* from, float* to) {
                                       run_.blur(t, axis, first, count, from, to);
                                     });
    in_chunks(t.simplices, [&](int64_t first, int64_t count) {
      kernels().lattice.expand_pairs(t, first, count, blurred, stores_[i].rows.data());
    });
  }
}

void TwoExact::splat(const float* rows, int64_t from, int64_t count) {
  size_t i = 0;
  for (; i + 1 < fields_.size(); i += 2) {
    const Field &a = fields_[i], &b = fields_[i + 1];
    if (a.lattice->dimension != 2 || b.lattice->dimension != 5) break;
    run_.splat_both(*a.lattice, *b.lattice, rows, from, count, a.spare, b.spare);
  }
  for (; i < fields_.size(); ++i) run_.splat(*fields_[i].lattice, rows, from, count, fields_[i].spare);
}

}  // namespace lidcam::crf
