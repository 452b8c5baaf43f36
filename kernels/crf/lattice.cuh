// The permutohedral lattice on the device: every pixel puts its vertices into a hash table, then every vertex looks for
// its neighbours. The number of a vertex depends on which thread came first; nothing that is computed later does.
// Each operation of `locate` is that of the CPU's lattice (kernels/crf), so that a pixel falls in the same simplex.
#pragma once
#include <cstdint>

#include "crf/cuda_args.h"

namespace lidcam::crf::cuda {

using Key = unsigned long long;
constexpr Key kEmpty = ~Key(0);

// The memory of one term of one image.
struct Memory {
  Key* keys;
  int *ids, *row, *counts, *neighbor;
  float *weight, *norm, *first, *second;
  unsigned long long* wide;

  __device__ Memory(unsigned char* m, const Place& p)
      : keys(reinterpret_cast<Key*>(m + p.keys)),
        ids(reinterpret_cast<int*>(m + p.ids)),
        row(reinterpret_cast<int*>(m + p.row)),
        counts(reinterpret_cast<int*>(m + p.counts)),
        neighbor(reinterpret_cast<int*>(m + p.neighbor)),
        weight(reinterpret_cast<float*>(m + p.weight)),
        norm(reinterpret_cast<float*>(m + p.norm)),
        first(reinterpret_cast<float*>(m + p.first)),
        second(reinterpret_cast<float*>(m + p.second)),
        wide(reinterpret_cast<unsigned long long*>(m + p.wide)) {}
};

// A vertex: its remainder, and for each direction but the last the coordinate divided by D + 1.
template <int D>
struct Codec {
  static constexpr int kBits = 61 / D < 20 ? 61 / D : 20;
  static constexpr int kOffset = 1 << (kBits - 1);
  static constexpr Key kOnes =
      D == 2 ? Key(1) | Key(1) << kBits
             : Key(1) | Key(1) << kBits | Key(1) << (2 * kBits) | Key(1) << (3 * kBits) | Key(1) << (4 * kBits);
  // Direction j adds one to all coordinates and takes D + 1 from coordinate j.
  __device__ static Key up(Key vertex, int j) {
    if (j < D) vertex -= Key(1) << (kBits * j);
    if (int(vertex >> (kBits * D)) == D) return (vertex & ((Key(1) << (kBits * D)) - 1)) + kOnes;
    return vertex + (Key(1) << (kBits * D));
  }
};

__device__ inline unsigned hash(Key key) {
  key ^= key >> 31;
  key *= 0x9E3779B97F4A7C15ull;
  return unsigned(key ^ (key >> 29));
}

template <int D>
__device__ void locate(const float* point, Key* key, float* weight) {
  constexpr float n = float(D + 1), inverse = 1.0f / float(D + 1);
  float e[D + 1], v[D + 1], sm = 0.0f;
  int base[D + 1], rank[D + 1], sum = 0;
#pragma unroll
  for (int j = D; j > 0; --j) {
    const float cf = point[j - 1];
    e[j] = sm - float(j) * cf;
    sm = sm + cf;
  }
  e[0] = sm;
#pragma unroll
  for (int i = 0; i <= D; ++i) {
    const float r = rintf(e[i] * inverse);
    base[i] = int(r);
    v[i] = e[i] - r * n;
    sum += base[i];
    rank[i] = i;
  }
#pragma unroll
  for (int i = 0; i < D; ++i)
#pragma unroll
    for (int j = i + 1; j <= D; ++j) {
      const int less = v[i] < v[j];
      rank[i] += less;
      rank[j] -= less;
    }
#pragma unroll
  for (int i = 0; i <= D; ++i) {
    rank[i] += sum;
    const int wrap = (rank[i] < 0) - (rank[i] > D);
    rank[i] += wrap * (D + 1);
    base[i] += wrap;
    v[i] = (e[i] - float(base[i] * (D + 1))) * inverse;
  }
  float sorted[D + 1];
#pragma unroll
  for (int r = 0; r <= D; ++r) {
    sorted[r] = v[0];
#pragma unroll
    for (int i = 1; i <= D; ++i) sorted[r] = rank[i] == r ? v[i] : sorted[r];
  }
  weight[0] = sorted[D] + (1.0f - sorted[0]);
#pragma unroll
  for (int k = 1; k <= D; ++k) weight[k] = sorted[D - k] - sorted[D - k + 1];
#pragma unroll
  for (int k = 0; k <= D; ++k) {
    key[k] = Key(k) << (Codec<D>::kBits * D);
#pragma unroll
    for (int j = 0; j < D; ++j) key[k] += Key(base[j] - (rank[j] > D - k) + Codec<D>::kOffset) << (Codec<D>::kBits * j);
  }
}

// The slot of a key, new or old; -1 where there are more vertices than the capacity. The table then stops filling up:
// at least half of it stays free, so that no search is long.
__device__ inline int insert(const Memory& m, const Args& args, Key key) {
  const unsigned mask = unsigned(args.slots) - 1;
  unsigned h = hash(key) & mask;
  for (int tries = 0; tries < args.slots; ++tries, h = (h + 1) & mask) {
    Key seen = *const_cast<volatile Key*>(&m.keys[h]);
    if (seen == kEmpty) {
      if (*const_cast<volatile int*>(&m.counts[0]) > args.capacity) return -1;
      seen = atomicCAS(&m.keys[h], kEmpty, key);
    }
    if (seen == key) return int(h);
    if (seen != kEmpty) continue;
    m.ids[h] = atomicAdd(&m.counts[0], 1);
    return int(h);
  }
  return -1;
}

__device__ inline int find(const Memory& m, const Args& args, Key key) {
  const unsigned mask = unsigned(args.slots) - 1;
  unsigned h = hash(key) & mask;
  for (int tries = 0; tries < args.slots && m.keys[h] != kEmpty; ++tries, h = (h + 1) & mask)
    if (m.keys[h] == key) return m.ids[h];
  return -1;
}

template <int D>
__device__ void add_pixel(const Memory& m, const Args& args, const Term& term, const uint8_t* image, int p) {
  const int pixels = args.height * args.width;
  float point[D], weight[D + 1];
  Key key[D + 1];
  // The CPU's lattice follows pydensecrf, which rounds the pixels up to a multiple of four with features 0.
  const bool real = p < pixels;
  const int x = p % args.width, y = p / args.width;
#pragma unroll
  for (int i = 0; i < D; ++i) {
    const int feature = i == 0 ? x : i == 1 ? y : real ? image[3 * int64_t(p) + i - 2] : 0;
    point[i] = real ? (float(feature) / term.deviation[i]) * term.scale[i] : 0.0f;
  }
  locate<D>(point, key, weight);
#pragma unroll
  for (int k = 0; k <= D; ++k) {
    const int slot = insert(m, args, key[k]);
    if (!real) continue;
    m.row[int64_t(k) * pixels + p] = slot;
    m.weight[int64_t(k) * pixels + p] = weight[k];
  }
}

// Slots become table rows: vertex + 1, as row 0 is the vertex that does not exist.
template <int D>
__device__ void connect(const Memory& m, const Args& args, int i) {
  const int pixels = args.height * args.width;
  if (m.counts[0] > args.capacity) return;
  if (i < pixels)
    for (int k = 0; k <= D; ++k) m.row[int64_t(k) * pixels + i] = m.ids[m.row[int64_t(k) * pixels + i]] + 1;
  if (i >= args.slots || m.keys[i] == kEmpty) return;
  const int id = m.ids[i];
  for (int j = 0; j <= D; ++j) {
    const int other = find(m, args, Codec<D>::up(m.keys[i], j));
    if (other < 0) continue;
    m.neighbor[int64_t(2 * j) * args.capacity + id] = other + 1;
    m.neighbor[int64_t(2 * j + 1) * args.capacity + other] = id + 1;
  }
}

}  // namespace lidcam::crf::cuda
