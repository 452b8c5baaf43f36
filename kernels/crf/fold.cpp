#include "crf/fold.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "crf/sweep.h"

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

void blur_message(FastTerm& f) {
  const TwoFastKernels& run = kernels().two_fast;
  const Lattice& t = *f.lattice;
  if (f.lines) {
    std::fill_n(f.spare, size_t(t.vertices) + 1, 0.0f);
    in_chunks(t.simplices, [&](int64_t first, int64_t count) { run.gather(f, first, count); });
  }
  float* const result =
      blur_axes(t, f.spare, f.table, [&](int axis, int64_t first, int64_t count, const float* from, float* to) {
        kernels().lattice.blur(t, axis, first, count, from, to);
      });
  if (result != f.table) std::swap(f.table, f.spare);
  if (f.lines)
    in_chunks(t.simplices, [&](int64_t first, int64_t count) { run.fill(f, first, count); });
  else
    in_chunks(int64_t(t.vertices) + 1, [&](int64_t first, int64_t count) { run.settle(f, first, count); });
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
    if (from % kChunk == 0) cpu::check_stop();
    run.convert(t.dimension, given + from * stride, kFastBlock, records + from * width);
    if (symmetric) run.splat(s, b, from, kFastBlock, sums);
  }
  if (symmetric) blur_message(term);
  for (int64_t from = 0; from < n; from += kFastBlock) {
    if (from % kChunk == 0) cpu::check_stop();
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
