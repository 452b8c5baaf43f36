#include "crf/fold.h"

#include <algorithm>
#include <cmath>

namespace lidcam::crf {
namespace {

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
  const TwoFastKernels& run = kernels().two_fast;
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

}  // namespace lidcam::crf
