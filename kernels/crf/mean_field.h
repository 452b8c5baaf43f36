// Mean field inference of a dense CRF (Krahenbuhl and Koltun, NIPS 2011).
#pragma once
#include <cstddef>
#include <vector>

#include "crf/term.h"

namespace lidcam::crf {

// Energies and compatibilities up to these sizes cannot overflow: a vertex sums at most 2^30 pixels, of 2^16 labels
// where there is a matrix, and the blur multiplies that by 64 at most.
constexpr float kMaxEnergy = 3e38f, kMaxCompat = 1e20f;

// Throw std::invalid_argument where a value is beyond them or NaN.
void check_energies(const float* unary, size_t count);
void check_compat(const std::vector<float>& compat, size_t labels);

// unary: [labels, pixels] negative log probabilities; q: [labels, pixels]. Runs at most `iterations`, stops when no q
// moved by more than tolerance (0: never). line: 0 for sums in pydensecrf's order, else the pixels of a line of the
// picture, for sums in the order that is fastest. Returns the iterations done.
int mean_field(const float* unary, int labels, int64_t pixels, const std::vector<Term>& terms, int iterations,
               float tolerance, float* q, int line = 0);

}  // namespace lidcam::crf
