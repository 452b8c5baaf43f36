// Mean field inference of a dense CRF (Krahenbuhl and Koltun, NIPS 2011).
#pragma once
#include <vector>

#include "crf/term.h"

namespace lidcam::crf {

// unary: [labels, pixels] negative log probabilities; q: [labels, pixels]. Runs at most `iterations`, stops when no q
// moved by more than tolerance (0: never). line: 0 for sums in pydensecrf's order, else the pixels of a line of the
// picture, for sums in the order that is fastest. Returns the iterations done.
int mean_field(const float* unary, int labels, int64_t pixels, const std::vector<Term>& terms, int iterations,
               float tolerance, float* q, int line = 0);

}  // namespace lidcam::crf
