#include "metrics/histogram.h"

#include <algorithm>
#include <vector>

namespace lidcam::metrics {

bool pair_histogram(const uint8_t* map, const uint8_t* mask, size_t count, int64_t* out) {
  // Row 0: background, 1: foreground, 2: ignored, 3: not allowed. Four copies, since runs of equal pixels would wait
  // for their own store.
  uint8_t row[256];
  std::fill(row, row + 256, uint8_t{3});
  row[0] = 0;
  row[1] = 1;
  row[255] = 2;
  constexpr size_t kBins = 1024;
  std::vector<uint32_t> bins(4 * kBins);
  std::fill(out, out + 512, 0);
  constexpr size_t kBlock = size_t{1} << 31;  // a 32-bit bin cannot overflow within a block
  bool allowed = true;
  for (size_t start = 0; start < count; start += kBlock) {
    const size_t stop = std::min(count, start + kBlock);
    std::fill(bins.begin(), bins.end(), 0u);
    uint32_t* b = bins.data();
    size_t i = start;
    for (; i + 4 <= stop; i += 4) {
      ++b[row[mask[i]] * 256 + map[i]];
      ++b[kBins + row[mask[i + 1]] * 256 + map[i + 1]];
      ++b[2 * kBins + row[mask[i + 2]] * 256 + map[i + 2]];
      ++b[3 * kBins + row[mask[i + 3]] * 256 + map[i + 3]];
    }
    for (; i < stop; ++i) ++b[row[mask[i]] * 256 + map[i]];
    for (size_t bin = 0; bin < 512; ++bin)
      out[bin] += int64_t{b[bin]} + b[kBins + bin] + b[2 * kBins + bin] + b[3 * kBins + bin];
    for (size_t bin = 768; bin < 1024; ++bin)
      allowed = allowed && !(b[bin] | b[kBins + bin] | b[2 * kBins + bin] | b[3 * kBins + bin]);
  }
  return allowed;
}

}  // namespace lidcam::metrics
