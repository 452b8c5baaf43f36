// The normalised kernel of a lattice as a linear filter.
#pragma once
#include "crf/lattice.h"

namespace lidcam::crf {

// out = K values, both [channels, pixels], as one pairwise term of mean field applies it.
void filter(const Lattice& lattice, const float* values, int channels, float* out);

}  // namespace lidcam::crf
