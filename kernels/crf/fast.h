// Two labels with sums in the order that is fastest, one channel (Q0 - Q1): near pydensecrf's result, not to the bit.
// The lattice is folded: weights hold the norm and the root of the blur's factor, so that splat and slice are one
// another's transpose and need nothing else.
#pragma once
#include "crf/lattice.h"

namespace lidcam::crf {

constexpr int kFastBlock = 64;  // pixels at once; arrays of pixels are padded to a multiple of it
// A record's last float is the simplex, moved to where integers are ordinary floats: the vectors hold it as one.
constexpr uint32_t kSimplexBits = 0x20000000u;

// A term while mean field runs. Dimension 2: weights of 3 corners, rows of 4 floats; dimension 5: 6 corners, 8 floats.
// lines: [simplices, 2, 4 or 8], per simplex what is sliced from its corners and what was splatted to them. Null where
// few pixels share a simplex: they then slice from the table and splat to the spare one.
struct FastTerm {
  const Lattice* lattice = nullptr;
  const float* records = nullptr;  // of the lattice
  float weight = 1;  // of Potts
  float *lines = nullptr, *table = nullptr, *spare = nullptr;  // tables: [vertices + 1], zero at first
};

struct FastKernels {
  // z: [count], a multiple of 16. Either term may be null.
  void (*slice)(const FastTerm* spatial, const FastTerm* bilateral, int64_t first, int count, float* z);  // z += K s
  void (*splat)(const FastTerm* spatial, const FastTerm* bilateral, int64_t first, int count, const float* s);
  // What was splatted, blurred, times the weight, to where it is sliced from; room for the next splat.
  void (*message)(FastTerm& t);
  // Records of lattice.h, [count, D + 3], to those used here, of 4 or 8 floats; may be in place where D is 5.
  void (*convert)(int dimension, const float* in, int count, float* out);
  // Weights of [count] records times root / sqrt(sum + 1e-20).
  void (*scale)(int dimension, const float* sums, float root, int count, float* records);
  void (*differences)(const float* z, int count, float* s);                // Q0 - Q1
  void (*probabilities)(const float* z, int count, float* q0, float* q1);  // Q0, Q1
};

}  // namespace lidcam::crf
