#include "crf/filter.h"

#include <algorithm>

#include "cpu/float_mode.h"
#include "crf/kernels.h"
#include "crf/sweep.h"

namespace lidcam::crf {

void filter(const Lattice& lattice, const float* values, int channels, float* out) {
  const cpu::FloatMode mode(cpu::Subnormals::flush);
  const ManyExactKernels& run = kernels().many_exact;
  const RowKernels& rearrange = kernels().rows;
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
      if (from % kChunk == 0) cpu::check_stop();
      const int count = int(std::min<int64_t>(kRows, lattice.pixels - from));
      rearrange.interleave(in + from, lattice.pixels, used, count, 1.0f, 0.0f, kWidth, kRows, rows);
      run.splat(&field, 1, rows, kWidth, kRows, from, count);
    }
    field.values = blur_axes(lattice, table.data(), spare.data(),
                             [&](int axis, int64_t first, int64_t count, const float* from, float* to) {
                               run.blur(lattice, axis, first, count, kWidth, from, to);
                             });
    for (int64_t from = 0; from < lattice.pixels; from += kRows) {
      if (from % kChunk == 0) cpu::check_stop();
      const int count = int(std::min<int64_t>(kRows, lattice.pixels - from));
      std::fill_n(rows, kRows * kWidth, 0.0f);
      run.slice(&field, 1, rows, kWidth, kRows, from, count, rows);
      rearrange.separate(rows, kWidth, used, kRows, count, lattice.pixels, to + from);
    }
  }
}

}  // namespace lidcam::crf
