// Many labels with sums in the order that is fastest: near pydensecrf's result, not to the bit. The picture is cut in
// tiles, and each term takes the pixels of a tile simplex by simplex: what is sliced from and splatted to a simplex
// stays in registers, and a tile's vertices stay in the cache.
#pragma once
#include "crf/lattice.h"

namespace lidcam::crf {

// Pixels lie tile by tile, `block` slots per tile; see kernels.h for rows of values.
struct TileTerm {
  int corners = 0;
  size_t vertices = 0;
  const float* weights = nullptr;   // [slots, corners] in the term's order, times the norm before the splat
  const float* ratios = nullptr;    // [slots] of the weights for slicing to these; null where all are 1
  const uint16_t* slots = nullptr;  // [slots] within the tile; null for the first term, whose order the slots have
  float *values = nullptr, *spare = nullptr;  // tables: sliced from, splatted to
};

struct Tile {               // for one term
  int64_t first;            // slot of its first pixel
  int runs;                 // groups of pixels in one simplex
  const int32_t* lengths;   // [runs]
  const int32_t* corners;   // [runs, corners] table rows
};

struct TileKernels {
  // rows: energy plus the message; they may be the same.
  void (*slice)(const TileTerm& t, const Tile& tile, int width, int block, const float* energy, float* rows);
  void (*splat)(const TileTerm& t, const Tile& tile, int width, int block, const float* rows);
  void (*softmax)(float* rows, int width, int block, int count);
  // Blurs and multiplies by factor [width].
  float* (*blur)(const Lattice& t, float* table, float* spare, int width, const float* factor);
};

}  // namespace lidcam::crf
