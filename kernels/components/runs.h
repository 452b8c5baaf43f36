// What a launch of the CUDA kernels of components needs to know; read by nvcc and by the host's compiler.
#pragma once
#include <cstdint>

namespace lidcam::components::cuda {

constexpr int kScratchBytes = 400, kBytesPerRun = 18;
constexpr int kThreads = 1024;
// A block of the kernels that make the bits: threads; rows of the picture for the one that resizes.
constexpr int kBitThreads = 256, kBitRows = 16;

// The bits of a mask: rows of whole 32-bit words.
constexpr int64_t bit_words(int64_t height, int64_t width) { return height * ((width + 31) / 32); }
constexpr int64_t bit_bytes(int64_t height, int64_t width) { return (4 * bit_words(height, width) + 15) / 16 * 16; }

// The runs of a mask with every second pixel a run: the first of each row, the runs, one more gap.
constexpr int64_t run_bytes(int64_t height, int64_t width) {
  return 4 * (height + 1) + kBytesPerRun * height * ((width + 1) / 2) + 4;
}

// Global memory of one mask.
constexpr int64_t mask_bytes(int64_t height, int64_t width) {
  return (bit_bytes(height, width) + run_bytes(height, width) + 15) / 16 * 16;
}

// Blocks that make the bits of one mask.
constexpr int64_t mask_bit_blocks(int64_t height, int64_t width, int threads = kBitThreads) {
  return (bit_words(height, width) + threads - 1) / threads;
}
constexpr int64_t map_bit_blocks(int64_t height, int64_t width, int threads = kBitThreads) {
  return ((width + threads - 1) / threads) * ((height + kBitRows - 1) / kBitRows);
}

}  // namespace lidcam::components::cuda
