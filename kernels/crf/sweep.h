// Passes over all pixels, simplices or vertices, in chunks: between chunks a call can be stopped.
#pragma once
#include <algorithm>
#include <utility>

#include "cpu/stop.h"
#include "crf/lattice.h"

namespace lidcam::crf {

constexpr int64_t kChunk = 1 << 13;  // a multiple of every vector's length

// visit(first, count)
template <typename Visit>
void in_chunks(int64_t count, Visit&& visit) {
  for (int64_t first = 0; first < count; first += kChunk) {
    cpu::check_stop();
    visit(first, std::min(kChunk, count - first));
  }
}

// Blurs a table along every axis of the lattice. blur(axis, first, count, from, to) does it for vertices `first` on,
// and clears row 0 where that is the first. Returns the table, one of both, that holds the result.
template <typename Blur>
float* blur_axes(const Lattice& t, float* table, float* spare, Blur&& blur) {
  for (int axis = 0; axis <= t.dimension; ++axis) {
    in_chunks(t.vertices, [&](int64_t first, int64_t count) { blur(axis, first, count, table, spare); });
    std::swap(table, spare);
  }
  return table;
}

}  // namespace lidcam::crf
