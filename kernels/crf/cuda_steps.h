// The kernels of a dense CRF in order, for whoever launches them.
#pragma once
#include <algorithm>
#include <cstdint>

#include "crf/cuda_args.h"

namespace lidcam::crf::cuda {

// Calls launch(kernel, blocks, threads, rows, number, phase) for each: the kernel takes (Arrays, Args, number, phase),
// with `blocks` blocks of `threads` threads along x and `rows` rows of blocks along y. at_once: threads that the device
// runs at once; how many vertices a lattice has is known on the device only, so these threads share them.
template <class Launch>
void each_step(const Args& args, int64_t count, int64_t at_once, Launch launch) {
  const int64_t pieces = tiles(args.height, args.width);
  const int64_t lattices = count * args.terms, share = std::max<int64_t>(kThreads, at_once / lattices);
  const auto blocks = [](int64_t threads) { return (threads + kThreads - 1) / kThreads; };
  const auto over_vertices = [&](const char* kernel, int channels, int number, int phase) {
    launch(kernel, blocks(std::min(share, (int64_t(args.capacity) + 1) * channels)), kThreads, lattices, number, phase);
  };
  int phases = 0;
  bool normalised = false, matrix = false;
  for (int t = 0; t < args.terms; ++t) {
    const Term& term = args.term[t];
    phases = std::max(phases, (term.dimension + 2) / 2);
    normalised = normalised || term.before || term.after;
    matrix = matrix || term.compat == kMatrix;
  }
  launch("lidcam_crf_clear", blocks(args.slots / 2), kThreads, lattices, 0, 0);
  launch("lidcam_crf_vertices", pieces, kTileThreads, lattices, 0, 0);
  over_vertices("lidcam_crf_neighbours", kCorners, 0, 0);
  launch("lidcam_crf_weigh", pieces, kTileThreads, lattices, 0, 0);
  for (int phase = 0; normalised && phase < phases; ++phase) over_vertices("lidcam_crf_blur_weights", 1, 0, phase);
  launch("lidcam_crf_norms", pieces, kTileThreads, lattices, 0, 0);
  over_vertices("lidcam_crf_begin", args.channels, 0, 0);
  for (int number = 0; number <= args.iterations; ++number) {
    for (int phase = 0; number > 0 && phase < phases; ++phase)
      over_vertices("lidcam_crf_blur", args.channels, number, phase);
    if (number > 0 && matrix) over_vertices("lidcam_crf_mix", args.channels, number, 0);
    launch(args.channels == 1 ? "lidcam_crf_step_two" : "lidcam_crf_step", pieces, kTileThreads, count, number, 0);
  }
}

}  // namespace lidcam::crf::cuda
