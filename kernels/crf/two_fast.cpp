#include "crf/two_fast.h"

#include <algorithm>
#include <cstring>

#include "crf/sweep.h"

namespace lidcam::crf {
namespace {

int64_t padded(int64_t pixels) { return (pixels + kFastBlock - 1) / kFastBlock * kFastBlock; }

}  // namespace

TwoFast::TwoFast(const float* unary, int64_t pixels, const std::vector<Term>& terms, bool keep)
    : run_(kernels().two_fast), n_(pixels), memory_(terms.size()), apart_(size_t(padded(pixels))) {
  for (size_t i = 0; i < terms.size(); ++i) {
    const Lattice& t = *terms[i].lattice;
    (t.dimension == 2 ? spatial_ : bilateral_).push_back(memory_[i].serve(t, t.record.data(), terms[i].compat[0]));
  }
  for (int64_t p = 0; p < n_; ++p) apart_[p] = unary[n_ + p] - unary[p];
  for (int64_t p = n_; p < padded(n_); ++p) apart_[p] = 0;
  if (keep) {
    kept_.allocate(size_t(padded(n_)));
    kept_.fill(0);
  }
}

float TwoFast::step(bool first, float* q) {
  const size_t pairs = std::max(spatial_.size(), bilateral_.size());
  const auto at = [](std::vector<FastTerm>& terms, size_t i) { return i < terms.size() ? &terms[i] : nullptr; };
  alignas(64) float z[kFastBlock], s[kFastBlock], other[kFastBlock];
  float change = 0;
  for (int64_t from = 0; from < n_; from += kFastBlock) {
    if (from % kChunk == 0) cpu::check_stop();
    std::memcpy(z, apart_.data() + from, sizeof z);
    if (!first)
      for (size_t i = 0; i < pairs; ++i) run_.slice(at(spatial_, i), at(bilateral_, i), from, kFastBlock, z);
    if (q) {
      const size_t count = size_t(std::min<int64_t>(kFastBlock, n_ - from));
      run_.probabilities(z, kFastBlock, s, other);
      std::memcpy(q + from, s, count * 4);
      std::memcpy(q + n_ + from, other, count * 4);
      continue;
    }
    run_.differences(z, kFastBlock, s);
    if (!kept_.empty()) {
      change = std::max(change, 0.5f * kernels().moved(s, kept_.data() + from, kFastBlock));
      std::memcpy(kept_.data() + from, s, sizeof s);
    }
    for (size_t i = 0; i < pairs; ++i) run_.splat(at(spatial_, i), at(bilateral_, i), from, kFastBlock, s);
  }
  return change;
}

void TwoFast::message() {
  for (FastTerm& f : spatial_) blur_message(f);
  for (FastTerm& f : bilateral_) blur_message(f);
}

}  // namespace lidcam::crf
