#include "crf/fast.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "crf/kernels.h"
#include "crf/two_fast.h"

namespace lidcam::crf {
namespace {

int64_t padded(int64_t pixels) { return (pixels + kFastBlock - 1) / kFastBlock * kFastBlock; }

// Pixels per simplex above which lines are worth their memory traffic (measured: 1.46 is below, 1.70 above).
constexpr double kShared = 1.5;

struct Memory {  // of one FastTerm
  Buffer<float> lines, table, spare;
  void serve(FastTerm& f) {
    const Lattice& t = *f.lattice;
    if (kShared * t.simplices < double(t.pixels)) {
      lines.allocate(size_t(t.simplices) * (t.dimension < 3 ? 8 : 16));
      lines.fill(0);
      f.lines = lines.data();
    }
    table.allocate(size_t(t.vertices) + 1);
    table.fill(0);
    spare.allocate(size_t(t.vertices) + 1);
    spare.fill(0);
    f.table = table.data();
    f.spare = spare.data();
  }
};

}  // namespace

void fold_lattice(Lattice& t, bool symmetric) {
  const FastKernels& run = fast_kernels();
  const int width = t.dimension == 2 ? 4 : 8;
  const int64_t n = t.pixels;
  static_assert(kBlock == kFastBlock);
  Buffer<float> narrower;
  if (width != t.stride) narrower.allocate(size_t(n + kBlock) * width);
  float* const records = narrower.empty() ? t.record.data() : narrower.data();
  const float* const given = t.record.data();
  const int stride = t.stride;
  FastTerm term;
  term.lattice = &t;
  term.weight = t.alpha;
  term.records = records;
  const bool spatial = t.dimension == 2;
  const FastTerm *s = spatial ? &term : nullptr, *b = spatial ? nullptr : &term;
  alignas(64) float sums[kFastBlock];
  std::fill_n(sums, kFastBlock, 1.0f);
  Memory memory;
  if (symmetric) memory.serve(term);
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

struct TwoFast::Impl {
  std::vector<FastTerm> spatial, bilateral;
  std::vector<Memory> memory;
  Buffer<float> apart, kept;  // u1 - u0; Q0 - Q1
};

TwoFast::TwoFast(const float* unary, int64_t pixels, const std::vector<Term>& terms, bool keep)
    : run_(fast_kernels()), n_(pixels), impl_(new Impl) {
  Impl& m = *impl_;
  m.memory.resize(terms.size());
  for (size_t i = 0; i < terms.size(); ++i) {
    FastTerm f;
    f.lattice = terms[i].lattice.get();
    f.records = f.lattice->record.data();
    f.weight = terms[i].compat[0];
    m.memory[i].serve(f);
    (f.lattice->dimension == 2 ? m.spatial : m.bilateral).push_back(f);
  }
  m.apart.allocate(size_t(padded(n_)));
  for (int64_t p = 0; p < n_; ++p) m.apart[p] = unary[n_ + p] - unary[p];
  for (int64_t p = n_; p < padded(n_); ++p) m.apart[p] = 0;
  if (keep) {
    m.kept.allocate(size_t(padded(n_)));
    m.kept.fill(0);
  }
}

TwoFast::~TwoFast() = default;

float TwoFast::step(bool first, float* q) {
  Impl& m = *impl_;
  const size_t pairs = std::max(m.spatial.size(), m.bilateral.size());
  const auto at = [](std::vector<FastTerm>& terms, size_t i) { return i < terms.size() ? &terms[i] : nullptr; };
  alignas(64) float z[kFastBlock], s[kFastBlock], other[kFastBlock];
  float most = 0;
  for (int64_t from = 0; from < n_; from += kFastBlock) {
    std::memcpy(z, m.apart.data() + from, sizeof z);
    if (!first)
      for (size_t i = 0; i < pairs; ++i) run_.slice(at(m.spatial, i), at(m.bilateral, i), from, kFastBlock, z);
    if (q) {
      const size_t count = size_t(std::min<int64_t>(kFastBlock, n_ - from));
      run_.probabilities(z, kFastBlock, s, other);
      std::memcpy(q + from, s, count * 4);
      std::memcpy(q + n_ + from, other, count * 4);
      continue;
    }
    run_.differences(z, kFastBlock, s);
    if (!m.kept.empty()) {
      most = std::max(most, 0.5f * kernels().moved(s, m.kept.data() + from, kFastBlock));
      std::memcpy(m.kept.data() + from, s, sizeof s);
    }
    for (size_t i = 0; i < pairs; ++i) run_.splat(at(m.spatial, i), at(m.bilateral, i), from, kFastBlock, s);
  }
  return most;
}

void TwoFast::message() {
  for (FastTerm& f : impl_->spatial) run_.message(f);
  for (FastTerm& f : impl_->bilateral) run_.message(f);
}

}  // namespace lidcam::crf
