// Mean field for any number of labels with sums in the fastest order, tile by tile (see ManyFastKernels): near
// pydensecrf's result, not to the bit.
#pragma once
#include <vector>

#include "crf/rows.h"
#include "crf/term.h"

namespace lidcam::crf {

class ManyFast {
 public:
  // line: pixels of a line of the picture, where `pixels` is a multiple of it. There is at least one term.
  ManyFast(const float* unary, int labels, int64_t pixels, int line, const std::vector<Term>& terms, bool keep);

  // Whether what is kept for each pixel is small enough.
  static bool fits(int labels, int64_t pixels);

  // See mean_field.cpp.
  float step(bool first, float* q);
  void message();

 private:
  struct Store {  // memory of one term
    Buffer<float> values, spare, weights, ratios;
    Compat compat;
    Buffer<uint16_t> slots;
    Buffer<int32_t> lengths, corners;  // of all runs
    std::vector<int64_t> runs;         // [tiles + 1], the first run of each tile
  };
  struct Patch {    // a tile of the picture
    int64_t pixel;  // its first
    int width, height;
  };
  template <int K>
  void serve(const Term& given, size_t i, int32_t* seen);
  Tile tile(size_t term, size_t index) const;
  void load(const float* unary);
  void write(size_t index, float* q);

  const ManyFastKernels& run_;
  const int labels_, width_, line_, across_, down_, block_;
  const int64_t n_;
  std::vector<const Lattice*> lattices_;  // of the terms, those of higher dimension first
  std::vector<Store> stores_;
  std::vector<TileTerm> terms_;
  std::vector<Patch> patches_;
  Buffer<uint16_t> order_;  // [slots] of a tile's pixels, line by line within it
  Buffer<float> energy_, kept_, rows_, sorted_, planes_, scratch_;
};

}  // namespace lidcam::crf
