// Ids for the simplices and vertices of a lattice over x and y, looked up by position in an array.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>

#include "crf/keys.h"

namespace lidcam::crf {

// Replaces Table where the features are a picture's x and y alone. It has an entry for every possible key, two
// to three times as many as occur.
class Grid {
 public:
  using Codec = Narrow<2>;
  using Key = uint64_t;

  // The possible bases of remainder-0 vertices, with a margin of two on each side.
  struct Bounds {
    int64_t low[2], size[2];
    // `across`, `down`: the largest features times the lattice's scale; the smallest are 0.
    Bounds(double across, double down) {
      low[0] = -4;
      size[0] = int64_t(std::ceil((across + down) / 3)) + 9;
      low[1] = -int64_t(std::ceil(across / 3)) - 4;
      size[1] = int64_t(std::ceil(down / 3)) - low[1] + 5;
    }
    int64_t cells() const { return size[0] * size[1]; }
  };

  // At most `limit` keys will be inserted.
  Grid(const Bounds& bounds, bool simplices, size_t limit) : bounds_(bounds), simplices_(simplices) {
    const size_t places = size_t(bounds.cells()) * (simplices ? 6 : 1);
    ids_.allocate(places);
    std::memset(ids_.data(), 0, places * 4);
    keys_.allocate(std::min(limit, places) + kBlock);
    for (int first = 0; first < 3; ++first)
      for (int second = 0; second < 3; ++second)
        order_[first + 8 * second] = uint8_t(2 * first + second - (second > first));
  }
  // Same as Table::insert.
  void insert(const Key* keys, int count, int32_t* out, int stride) {
    alignas(64) int64_t place[kBlock];
    places(keys, count, place);
    int32_t size = size_;
    for (int i = 0; i < count; ++i) {
      uint64_t id = uint32_t(ids_[place[i]]), fresh = id == 0;
      __asm__("" : "+r"(fresh));  // keeps the compiler from a branch, which would be mispredicted
      id += uint64_t(uint32_t(size + 1)) & -fresh;
      ids_[place[i]] = int32_t(id);
      keys_[size] = keys[i];
      size += int32_t(fresh);
      out[i * stride] = int32_t(id) - 1;
    }
    size_ = size;
  }
  void find(const Key* keys, int count, int32_t* ids) const {
    alignas(64) int64_t place[kBlock];
    places(keys, count, place);
    for (int i = 0; i < count; ++i) ids[i] = ids_[place[i]];
  }
  int32_t size() const { return size_; }
  const Key* keys() const { return keys_.data(); }
  bool outside() const { return outside_; }  // whether any simplex lay outside the bounds: its id is then invalid

 private:
  void places(const Key* keys, int count, int64_t* place) const {
    constexpr uint64_t offset = 1 << (Codec::kBits - 1), mask = (1 << Codec::kBits) - 1;
    const uint64_t x0 = bounds_.low[0] + offset, y0 = bounds_.low[1] + offset;
    const uint64_t width = bounds_.size[0], height = bounds_.size[1], origin = y0 * width + x0;
    for (int i = 0; i < count; ++i)
      place[i] =
          int64_t(uint64_t(uint32_t((keys[i] >> Codec::kBits) & mask)) * uint32_t(width) + (keys[i] & mask) - origin);
    if (!simplices_) return;
    // Corners and their neighbours are at most two from a simplex.
    bool out = false;
    for (int i = 0; i < count; ++i) {
      const uint64_t x = (keys[i] & mask) - x0 - 2, y = ((keys[i] >> Codec::kBits) & mask) - y0 - 2;
      const bool beyond = (x >= width - 4) | (y >= height - 4);
      place[i] = beyond ? 0 : 6 * place[i] + order_[keys[i] >> (2 * Codec::kBits)];
      out |= beyond;
    }
    outside_ |= out;
  }
  Bounds bounds_;
  bool simplices_;
  mutable bool outside_ = false;
  Buffer<int32_t> ids_;  // id + 1, or 0 for none
  Buffer<Key> keys_;
  int32_t size_ = 0;
  uint8_t order_[64] = {};  // maps the ranks of a simplex to 0..5
};

}  // namespace lidcam::crf
