// Comparisons of bytes, 64 at a time.
#pragma once
#include <cstdint>

#include "cpu/isa.h"

namespace lidcam::cpu {

struct ByteKernels {
  // Bit k of words[i]: whether row[64 i + k] >= limit. Bits past `width` are 0.
  void (*row_at_least)(const uint8_t* row, int width, uint8_t limit, uint64_t* words);
};

LIDCAM_KERNEL_TABLE(ByteKernels, byte_kernels)

}  // namespace lidcam::cpu
