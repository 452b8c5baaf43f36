// Lattices for two labels in the fastest order of sums. A folded lattice's weights hold the norm and the root of the
// blur's factor, so that splat and slice are one another's transpose and need nothing else.
#pragma once
#include "crf/kernels.h"
#include "crf/lattice.h"

namespace lidcam::crf {

// Folds the norm into a lattice of dimension 2 or 5 that was built and not normalised.
void fold_lattice(Lattice& t, bool symmetric);

// Turns what was splatted into the message: blurred, times the weight, where it is sliced from.
void blur_message(FastTerm& f);

struct FastMemory {  // of one FastTerm
  Buffer<float> lines, table, spare;
  FastTerm serve(const Lattice& t, const float* records, float weight);
};

}  // namespace lidcam::crf
