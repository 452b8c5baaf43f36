// The inner loops of PaS, compiled once per instruction set. Every set gives the same bits: the reference's operations
// in the reference's order.
#pragma once
#include <cstdint>

#include "cpu/isa.h"

namespace lidcam::pas {

// Outputs [begin, end) of one axis that read the same source cells.
struct Span {
  int begin, end;
  int source[4];
};

struct Place {
  int y, x;
};

constexpr int kPad = 16;  // floats that `across` may write, and read of the weights, beyond the end

constexpr float kMinRange = 1e-30f, kMaxRange = 1e30f;

struct Loops {
  // One row of `width` outputs from a row of cells; weight[tap * width + x].
  void (*across)(const float* in, const Span* spans, int count, int taps, const float* weight, int width, float* out);
  // All rows of the output from resized rows [*, width]; weight[tap * height + y]. low and high are lowered and raised.
  void (*down)(const float* rows, const Span* spans, int count, int taps, const float* weight, int height, int width,
               float* out, float* low, float* high);
  // The same without an output, and then from the rows to the bytes: the floats are never stored. Finite values and a
  // range between kMinRange and kMaxRange only. `places`: two outputs that are likely extremes.
  void (*extremes)(const float* rows, const Span* spans, int count, int taps, const float* weight, int height,
                   int width, const Place* places, float* low, float* high);
  void (*down_bytes)(const float* rows, const Span* spans, int count, int taps, const float* weight, int height,
                     int width, float low, float range, uint8_t* out);
  // ((x - low) / range) * 255, truncated.
  void (*to_bytes)(const float* x, int64_t n, float low, float range, uint8_t* out);
  // Of `blocks` blocks of 64 bytes that lie `stride` bytes apart, how many bytes are below and how many at most
  // `level`.
  void (*count)(const uint8_t* map, int64_t blocks, int64_t stride, int level, int64_t* below, int64_t* at_most);
  // Smallest byte greater than `level`, or 255.
  int (*next_byte)(const uint8_t* map, int64_t n, int level);
  void (*above_level)(const uint8_t* map, int64_t n, int level, uint8_t* mask);
  void (*above_cut)(const float* x, int64_t n, float low, float cut, uint8_t* mask);
};

LIDCAM_KERNEL_TABLE(Loops, loops)

}  // namespace lidcam::pas
