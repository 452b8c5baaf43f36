#include "crf/two_fast.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "crf/kernels.h"

namespace lidcam::crf {
namespace {

int64_t padded(int64_t pixels) { return (pixels + kFastBlock - 1) / kFastBlock * kFastBlock; }

// Pixels per simplex above which lines are worth their memory traffic (measured: 1.46 is below, 1.70 above).
constexpr double kShared = 1.5;

}  // namespace

FastTerm FastMemory::serve(const Lattice& t, const float* records, float weight) {
  FastTerm f;
  f.lattice = &t;
  f.records = records;
  f.weight = weight;
  if (kShared * t.simplices < double(t.pixels)) {
    lines.allocate(size_t(t.simplices) * (t.dimension < 3 ? 8 : 16));
    lines.fill(0);
    f.lines = lines.data();
  }
  for (Buffer<float>* each : {&table, &spare}) {
    each->allocate(size_t(t.vertices) + 1);
    each->fill(0);
  }
  f.table = table.data();
  f.spare = spare.data();
  return f;
}

void fold_lattice(Lattice& t, bool symmetric) {
  const FastKernels& run = kernels().fast;
  const int width = t.dimension == 2 ? 4 : 8;
  const int64_t n = t.pixels;
  static_assert(kBlock == kFastBlock);
  Buffer<float> narrower;
  if (width != t.stride) narrower.allocate(size_t(n + kBlock) * width);
  float* const records = narrower.empty() ? t.record.data() : narrower.data();
  const float* const given = t.record.data();
  const int stride = t.stride;
  FastMemory memory;
  FastTerm term;
  if (symmetric) term = memory.serve(t, records, t.alpha);
  const bool spatial = t.dimension == 2;
  const FastTerm *s = spatial ? &term : nullptr, *b = spatial ? nullptr : &term;
  alignas(64) float sums[kFastBlock];
  std::fill_n(sums, kFastBlock, 1.0f);
  for (int64_t from = 0; from < n; from += kFastBlock) {
    run.convert(t.dimension, given + from * stride, kFastBlock, records + from * width);
    if (symmetric) run.splat(s, b, from, kFastBlock, sums);
  }
  if (symmetric) run.message(term);
  for (int64_t from = 0; from < n; from += kFastBlock) {
    if (symmetric) {
      std::fill_n(sums, kFastBlock, 0.0f);
      run.slice(s, b, from, kFastBlock, sums);
    }
    run.scale(t.dimension, sums, std::sqrt(t.alpha), kFastBlock, records + from * width);
  }
  if (!narrower.empty()) t.record = std::move(narrower);
  t.stride = width;
  t.folded = true;
}

TwoFast::TwoFast(const float* unary, int64_t pixels, const std::vector<Term>& terms, bool keep)
    : run_(kernels().fast), n_(pixels), memory_(terms.size()), apart_(size_t(padded(pixels))) {
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
  float most = 0;
  for (int64_t from = 0; from < n_; from += kFastBlock) {
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
      most = std::max(most, 0.5f * kernels().moved(s, kept_.data() + from, kFastBlock));
      std::memcpy(kept_.data() + from, s, sizeof s);
    }
    for (size_t i = 0; i < pairs; ++i) run_.splat(at(spatial_, i), at(bilateral_, i), from, kFastBlock, s);
  }
  return most;
}

void TwoFast::message() {
  for (FastTerm& f : spatial_) run_.message(f);
  for (FastTerm& f : bilateral_) run_.message(f);
}

}  // namespace lidcam::crf
