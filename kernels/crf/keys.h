// Keys of the simplices and vertices of a lattice.
#pragma once
#include <cstdint>

#include "crf/kernels.h"

namespace lidcam::crf {

// A simplex is its remainder-0 corner (a coordinate is (D + 1) * base) and the order of its coordinates; a vertex is
// its remainder k and base, a coordinate being (D + 1) * base + k. The neighbour of a vertex in direction j adds 1 to
// every coordinate and takes D + 1 from coordinate j: k grows by one and base[j] falls by one. (Coordinate D is
// implied.) Corner k + 1 of a simplex is the neighbour of corner k in the direction whose rank is D - k.

// A key in one word.
template <int D>
struct Narrow {
  using Key = uint64_t;
  static constexpr int kBits = (64 - 3 * D) / D < 20 ? (64 - 3 * D) / D : 20;
  static constexpr Key kRest = Key(1) << (kBits * D);
  static constexpr Key ones() {  // a 1 in the field of every coordinate
    Key all = 0;
    for (int j = 0; j < D; ++j) all |= Key(1) << (kBits * j);
    return all;
  }
  static Key simplex(const Located& at, int p) { return at.key[p]; }
  // Keys of the corners of kBlock simplices.
  static void corners(const Key* simplices, Key (*keys)[kBlock]) { kernels().lattice.corners(D, simplices, keys); }
  // The neighbour of a vertex of remainder k.
  static Key up(Key vertex, int k, int direction) {
    if (direction < D) vertex -= Key(1) << (kBits * direction);
    return k == D ? vertex - D * kRest + ones() : vertex + kRest;
  }
  static uint64_t hash(Key key) { return key * kHash; }
};

// For very small deviations on large images: 32 bits per coordinate.
struct WideKey {
  int32_t base[kMaxDimension];
  uint32_t rest;  // ranks of 3 bits, or the remainder
  bool operator==(const WideKey& o) const {
    bool same = rest == o.rest;
    for (int j = 0; j < kMaxDimension; ++j) same = same & (base[j] == o.base[j]);
    return same;
  }
};

template <int D>
struct Wide {
  using Key = WideKey;
  static Key simplex(const Located& at, int p) {
    Key key{};
    for (int j = 0; j < D; ++j) {
      key.base[j] = at.base[j][p];
      key.rest |= uint32_t(at.rank[j][p]) << (3 * j);
    }
    return key;
  }
  static void corners(const Key* simplices, Key (*keys)[kBlock]) {
    for (int i = 0; i < kBlock; ++i) {
      int with_rank[8];  // direction of each rank; the implied coordinate has the remaining one
      for (int r = 0; r <= D; ++r) with_rank[r] = D;
      for (int j = 0; j < D; ++j) with_rank[(simplices[i].rest >> (3 * j)) & 7] = j;
      keys[0][i] = simplices[i];
      keys[0][i].rest = 0;
      for (int k = 0; k < D; ++k) keys[k + 1][i] = up(keys[k][i], k, with_rank[D - k]);
    }
  }
  static Key up(Key vertex, int k, int direction) {
    if (direction < D) --vertex.base[direction];
    vertex.rest = k == D ? 0 : k + 1;
    for (int j = 0; j < D && k == D; ++j) ++vertex.base[j];
    return vertex;
  }
  static uint64_t hash(const Key& key) {
    uint64_t h = key.rest;
    for (int j = 0; j < kMaxDimension; ++j) {
      h = (h ^ uint32_t(key.base[j])) * 0x9E3779B97F4A7C15ull;
      h ^= h >> 32;
    }
    return h * 0x9E3779B97F4A7C15ull;
  }
};

}  // namespace lidcam::crf
