#include "crf/many_labels.h"

#include <algorithm>

namespace lidcam::crf {
namespace {

constexpr size_t kStoredRows = size_t(1) << 27;  // floats of interleaved unary energies that are kept
constexpr float kPadding = -1e30f;               // the energy of labels that do not exist

}  // namespace

ManyLabels::ManyLabels(const float* unary, int labels, int64_t pixels, const std::vector<Term>& terms, bool keep)
    : run_(kernels()),
      unary_(unary),
      labels_(labels),
      width_((labels + 7) / 8 * 8),
      block_(std::clamp(2048 / width_, 4, 128)),
      n_(pixels),
      fields_(terms.size()),
      stores_(terms.size()),
      scratch_(size_t(width_)),
      q_(size_t(block_) * width_) {
  for (size_t i = 0; i < terms.size(); ++i) {
    const Lattice& t = *terms[i].lattice;
    const std::vector<float>& compat = terms[i].compat;
    Field& f = fields_[i];
    Store& s = stores_[i];
    s.values.allocate((size_t(t.vertices) + 1) * width_);
    s.spare.allocate((size_t(t.vertices) + 1) * width_);
    f.lattice = &t;
    f.values = s.values.data();
    f.spare = s.spare.data();
    if (compat.size() == 1) {
      f.weight = compat[0];
    } else if (compat.size() == size_t(labels)) {
      s.compat.allocate(size_t(width_));
      s.compat.fill(0);
      std::copy(compat.begin(), compat.end(), s.compat.data());
      f.diagonal = s.compat.data();
    } else {
      f.weight = -1;
      s.compat.allocate(size_t(labels) * width_);
      run_.interleave(compat.data(), labels, labels, labels, 1.0f, 0.0f, width_, s.compat.data());
    }
  }
  const size_t all = size_t(n_) * width_;
  if (all <= kStoredRows) {
    energy_.allocate(all);
    run_.interleave(unary_, n_, labels_, n_, -1.0f, kPadding, width_, energy_.data());
  } else {
    energy_.allocate(size_t(block_) * width_);
  }
  if (keep) {
    kept_.allocate(all);
    kept_.fill(0);
  }
}

float ManyLabels::step(bool first, float* q) {
  if (!q)
    for (Field& f : fields_) std::fill_n(f.spare, (size_t(f.lattice->vertices) + 1) * width_, 0.0f);
  const bool stored = energy_.size() == size_t(n_) * width_;
  float most = 0;
  for (int64_t from = 0; from < n_; from += block_) {
    const int64_t count = std::min<int64_t>(block_, n_ - from);
    float* energy = energy_.data() + (stored ? from * width_ : 0);
    if (!stored) run_.interleave(unary_ + from, n_, labels_, count, -1.0f, kPadding, width_, energy);
    if (first || fields_.empty())
      std::copy(energy, energy + count * width_, q_.data());
    else
      for (size_t i = 0; i < fields_.size(); ++i)
        run_.slice_many(fields_[i], i ? q_.data() : energy, width_, from, count, q_.data());
    run_.softmax(q_.data(), width_, labels_, count);
    if (!kept_.empty()) {
      float* before = kept_.data() + from * width_;
      most = std::max(most, run_.moved(q_.data(), before, count * width_));
      std::copy(q_.data(), q_.data() + count * width_, before);
    }
    if (q)
      run_.separate(q_.data(), width_, labels_, count, n_, q + from);
    else
      for (const Field& f : fields_) run_.splat_many(f, q_.data(), width_, from, count);
  }
  return most;
}

// A matrix acts on the vertices: it commutes with slicing, and there are fewer vertices than pixels.
void ManyLabels::message() {
  for (size_t i = 0; i < fields_.size(); ++i) {
    Field& f = fields_[i];
    if (run_.blur_many(*f.lattice, f.spare, f.values, width_) != f.values) std::swap(f.values, f.spare);
    if (!stores_[i].compat.empty() && !f.diagonal)
      run_.compatibility(f.values, int64_t(f.lattice->vertices) + 1, labels_, width_, stores_[i].compat.data(),
                         scratch_.data());
  }
}

}  // namespace lidcam::crf
