// Compiled once per instruction set.
#include "cpu/bytes.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace lidcam::cpu::LIDCAM_TARGET {
namespace {

#include "cpu/simd.inc"

void row_at_least(const uint8_t* row, int width, uint8_t limit, uint64_t* words) {
  int x = 0;
  for (; x + 64 <= width; x += 64) *words++ = at_least(row + x, limit);
  if (x == width) return;
  uint8_t rest[64] = {};
  __builtin_memcpy(rest, row + x, size_t(width - x));
  *words = at_least(rest, limit) & (~uint64_t(0) >> (64 - (width - x)));
}

}  // namespace

const ByteKernels kByteKernels = {row_at_least};

}  // namespace lidcam::cpu::LIDCAM_TARGET
