#pragma once
#include <cstddef>
#include <cstdint>

namespace lidcam::metrics {

// Counts of map values: out[0..255] at mask == 0, out[256..511] at mask == 1. A mask of 255 is left out.
// Returns false when the mask holds another value (out is then meaningless).
bool pair_histogram(const uint8_t* map, const uint8_t* mask, size_t count, int64_t* out);

}  // namespace lidcam::metrics
