#include "crf/rows.h"

#include <algorithm>

namespace lidcam::crf {

void Compat::set(const std::vector<float>& compat, int labels, int width) {
  factor.allocate(size_t(width));
  factor.fill(0);
  for (int l = 0; l < labels; ++l)
    factor[l] = compat.size() == 1 ? compat[0] : compat.size() == size_t(labels) ? -compat[l] : -1.0f;
  if (compat.size() <= size_t(labels)) return;
  matrix.allocate(size_t(labels) * width);
  matrix.fill(0);
  for (int l = 0; l < labels; ++l)
    std::copy_n(compat.data() + size_t(l) * labels, labels, matrix.data() + size_t(l) * width);
}

void Compat::apply(float* table, const Lattice& t, int labels, int width, float* scratch) const {
  if (matrix.empty()) return;
  const int64_t rows = int64_t(t.vertices) + 1, step = std::max<int64_t>(1, (1 << 20) / (int64_t(labels) * width));
  for (int64_t first = 0; first < rows; first += step) {
    cpu::check_stop();
    kernels().rows.compatibility(table, rows, first, std::min(step, rows - first), labels, width, matrix.data(),
                                 scratch);
  }
}

float keep_rows(const float* now, float* kept, int width, int block, int count) {
  float change = 0;
  for (int part = 0; part < width; part += 16, now += 16 * block, kept += 16 * block) {
    const int64_t used = int64_t(count) * std::min(16, width - part);
    change = std::max(change, kernels().moved(now, kept, used));
    std::copy_n(now, used, kept);
  }
  return change;
}

}  // namespace lidcam::crf
