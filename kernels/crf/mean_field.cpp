#include "crf/mean_field.h"

#include <stdexcept>

#include "cpu/float_mode.h"
#include "crf/kernels.h"
#include "crf/many_exact.h"
#include "crf/many_fast.h"
#include "crf/two_exact.h"
#include "crf/two_fast.h"

namespace lidcam::crf {
namespace {

// A model has two functions. step(first, q) makes the marginals from the unary energies and, unless it is the first
// time, the messages, and splats them, or writes them to q [labels, pixels] where that is not null; it returns the
// largest change where changes are kept. message() makes the messages of what was splatted.
template <typename Model>
int infer(Model&& model, int iterations, float tolerance, float* q) {
  model.step(true, iterations == 0 ? q : nullptr);
  for (int done = 1; done <= iterations; ++done) {
    model.message();
    // With a tolerance the last step is known only afterwards; the messages are still there, so it is done again.
    const bool last = done == iterations;
    const float moved = model.step(false, last ? q : nullptr);
    if (!last && tolerance > 0 && moved <= tolerance) {
      model.step(false, q);
      return done;
    }
  }
  return iterations;
}

}  // namespace

void check_energies(const float* unary, size_t count) {
  if (!kernels().within(unary, count, kMaxEnergy))
    throw std::invalid_argument("unary holds NaN, infinity or a number beyond 3e38");
}

void check_compat(const std::vector<float>& compat, size_t labels) {
  if (compat.size() != 1 && compat.size() != labels && compat.size() != labels * labels)
    throw std::invalid_argument("compat holds 1, labels or labels * labels values");
  if (!kernels().within(compat.data(), compat.size(), kMaxCompat))
    throw std::invalid_argument("compat holds NaN, infinity or a number beyond 1e20");
}

int mean_field(const float* unary, int labels, int64_t pixels, const std::vector<Term>& terms, int iterations,
               float tolerance, float* q, int line) {
  const cpu::FloatMode mode(cpu::Subnormals::flush);
  if (!terms.empty() && terms[0].lattice->folded)
    return infer(TwoFast(unary, pixels, terms, tolerance > 0), iterations, tolerance, q);
  if (line > 0 && labels > 2 && !terms.empty() && ManyFast::fits(labels, pixels))
    return infer(ManyFast(unary, labels, pixels, line, terms, tolerance > 0), iterations, tolerance, q);
  bool potts = true;
  for (const Term& t : terms) potts = potts && t.compat.size() == 1;
  if (labels == 2 && potts) return infer(TwoExact(unary, pixels, terms, tolerance > 0), iterations, tolerance, q);
  return infer(ManyExact(unary, labels, pixels, terms, tolerance > 0), iterations, tolerance, q);
}

}  // namespace lidcam::crf
