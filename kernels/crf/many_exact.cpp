#include "crf/many_exact.h"

#include <algorithm>

namespace lidcam::crf {

ManyExact::ManyExact(const float* unary, int labels, int64_t pixels, const std::vector<Term>& terms, bool keep)
    : run_(kernels().many_exact),
      unary_(unary),
      labels_(labels),
      width_((labels + 7) / 8 * 8),
      block_(std::clamp(10240 / width_ / 8 * 8, 8, kRows)),
      n_(pixels),
      fields_(terms.size()),
      stores_(terms.size()),
      scratch_(size_t(width_) * 2),
      q_(size_t(block_) * width_) {
  for (size_t i = 0; i < terms.size(); ++i) {
    const Lattice& t = *terms[i].lattice;
    Field& f = fields_[i];
    Store& s = stores_[i];
    s.values.allocate((size_t(t.vertices) + 1) * width_);
    s.spare.allocate((size_t(t.vertices) + 1) * width_);
    f.lattice = &t;
    f.values = s.values.data();
    f.spare = s.spare.data();
    s.compat.set(terms[i].compat, labels, width_);
    f.factor = s.compat.factor.data();
  }
  const int64_t blocks = (n_ + block_ - 1) / block_;
  const size_t all = size_t(blocks) * block_ * width_;
  stored_ = all <= kStoredRows;
  energy_.allocate(stored_ ? all : size_t(block_) * width_);
  if (stored_)
    for (int64_t from = 0; from < n_; from += block_) {
      cpu::check_stop();
      load(from, energy_.data() + from * width_);
    }
  if (keep) {
    kept_.allocate(all);
    kept_.fill(0);
  }
}

int ManyExact::load(int64_t from, float* energy) const {
  const int count = int(std::min<int64_t>(block_, n_ - from));
  kernels().rows.interleave(unary_ + from, n_, labels_, count, -1.0f, kPadding, width_, block_, energy);
  return count;
}

float ManyExact::step(bool first, float* q) {
  if (!q)
    for (Field& f : fields_) std::fill_n(f.spare, (size_t(f.lattice->vertices) + 1) * width_, 0.0f);
  float change = 0;
  for (int64_t from = 0; from < n_; from += block_) {
    cpu::check_stop();
    const int count = int(std::min<int64_t>(block_, n_ - from));
    float* energy = energy_.data() + (stored_ ? from * width_ : 0);
    if (!stored_) load(from, energy);
    if (first || fields_.empty())
      std::copy_n(energy, block_ * width_, q_.data());
    else
      run_.slice(fields_.data(), fields_.size(), energy, width_, block_, from, count, q_.data());
    run_.softmax(q_.data(), labels_, width_, block_, count);
    if (!kept_.empty())
      change = std::max(change, keep_rows(q_.data(), kept_.data() + from * width_, width_, block_, count));
    if (q)
      kernels().rows.separate(q_.data(), width_, labels_, block_, count, n_, q + from);
    else
      run_.splat(fields_.data(), fields_.size(), q_.data(), width_, block_, from, count);
  }
  return change;
}

// A matrix acts on the vertices: it commutes with slicing, and there are fewer vertices than pixels.
void ManyExact::message() {
  for (size_t i = 0; i < fields_.size(); ++i) {
    Field& f = fields_[i];
    const Lattice& t = *f.lattice;
    float* const blurred = blur_rows(t, width_, f.spare, f.values,
                                     [&](int axis, int64_t first, int64_t count, int, int lanes, const float* from,
                                         float* to) { run_.blur(t, axis, first, count, lanes, from, to); });
    if (blurred != f.values) std::swap(f.values, f.spare);
    stores_[i].compat.apply(f.values, t, labels_, width_, scratch_.data());
  }
}

}  // namespace lidcam::crf
