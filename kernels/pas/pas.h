// PaS on the CPU. The definition is lidcam_rt/pas/reference.py; this gives the same bits.
#pragma once
#include <cstdint>
#include <vector>

#include "pas/loops.h"
#include "pas/options.h"

namespace lidcam::pas {

// Taps of one axis: tap t of output i reads cell source[t] of its span with weight[t * n + i].
struct Taps {
  int n_in = 0, n_out = 0, taps = 0;
  bool linear = false;
  std::vector<Span> spans;
  std::vector<float> weight;  // padded by kPad
  void make(int in, int out, bool is_linear);
};

// What a thread keeps from one map to the next. The large arrays come from the pool of cpu/memory.h.
struct Workspace {
  Taps across, down;
  std::vector<float> order;
};

// One map [h, w] -> map uint8 [H, W], mask uint8 [H, W] (0 or 1), threshold.
void pas_map(const float* cam, int h, int w, int height, int width, const PasOptions& options, Workspace& space,
             uint8_t* map, uint8_t* mask, float* threshold);

// `count` maps, on up to `threads` threads.
void pas_batch(const float* cam, int64_t count, int h, int w, int height, int width, const PasOptions& options,
               int threads, uint8_t* map, uint8_t* mask, float* threshold);

}  // namespace lidcam::pas
