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
  Near* near;
  unsigned long long* sums;
  float *weight, *norm, *first, *second;
  uint16_t* local;
  int *list, *lengths, *heaviest, *ids, *slot, *counts;

  __device__ Memory(unsigned char* m, const Place& p)
      : keys(reinterpret_cast<Key*>(m + p.keys)),
        near(reinterpret_cast<Near*>(m + p.near)),
        sums(reinterpret_cast<unsigned long long*>(m + p.sums)),
        weight(reinterpret_cast<float*>(m + p.weight)),
        norm(reinterpret_cast<float*>(m + p.norm)),
        first(reinterpret_cast<float*>(m + p.first)),
        second(reinterpret_cast<float*>(m + p.second)),
        local(reinterpret_cast<uint16_t*>(m + p.local)),
        list(reinterpret_cast<int*>(m + p.list)),
        lengths(reinterpret_cast<int*>(m + p.lengths)),
        heaviest(reinterpret_cast<int*>(m + p.heaviest)),
        ids(reinterpret_cast<int*>(m + p.ids)),
        slot(reinterpret_cast<int*>(m + p.slot)),
        counts(reinterpret_cast<int*>(m + p.counts)) {}
};

// Where a thread's four pixels lie.
struct Spot {
  int tile, place, y, x;  // place: of the first in its tile

  __device__ explicit Spot(int width)
      : tile(int(blockIdx.x)),
        place(int(threadIdx.x) * kPerThread),
        y(tile / tiles_across(width) * kTileHeight + place / kTileWidth),
        x(tile % tiles_across(width) * kTileWidth + place % kTileWidth) {}
  // Of a corner, in arrays [tile, 6, 512].
  __device__ int64_t at(int corner) const { return int64_t(tile) * kTileCorners + corner * kTilePixels + place; }
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
  __device__ static Key down(Key vertex, int j) {
    if (vertex >> (kBits * D))
      vertex -= Key(1) << (kBits * D);
    else
      vertex = vertex - kOnes + (Key(D) << (kBits * D));
    return j < D ? vertex + (Key(1) << (kBits * j)) : vertex;
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

constexpr int kLongest = 4096;  // the longest search

// The slot of a key, new or old; -1 where there are more vertices than the capacity. The table then stops filling up,
// but for what is under way, so that searches stay short; a longer one also returns -1. added: whether it is new.
__device__ inline int insert(const Memory& m, const Args& args, Key key, bool* added) {
  const unsigned mask = unsigned(args.slots) - 1;
  unsigned h = hash(key) & mask;
  for (int tries = 0; tries < min(args.slots, kLongest); ++tries, h = (h + 1) & mask) {
    Key seen = *const_cast<volatile Key*>(&m.keys[h]);
    if (seen == kEmpty) {
      if (*const_cast<volatile int*>(&m.counts[0]) > args.capacity) return -1;
      seen = atomicCAS(&m.keys[h], kEmpty, key);
      *added = seen == kEmpty;
    }
    if (seen == key || seen == kEmpty) return int(h);
  }
  atomicMax(&m.counts[0], args.capacity + 1);
  return -1;
}

// Numbers the new vertices of a warp; all its threads call it.
__device__ inline void number(const Memory& m, const Args& args, int slot, bool added) {
  const unsigned all = __ballot_sync(0xffffffffu, added), lane = threadIdx.x % 32;
  if (!all) return;
  const int leader = __ffs(int(all)) - 1;
  int first = 0;
  if (int(lane) == leader) first = atomicAdd(&m.counts[0], __popc(all));
  first = __shfl_sync(0xffffffffu, first, leader);
  if (!added) return;
  const int id = first + __popc(all & ((1u << lane) - 1));
  m.ids[slot] = id;
  if (id < args.capacity) m.slot[id] = slot;
}

__device__ inline int find(const Memory& m, const Args& args, Key key) {
  const unsigned mask = unsigned(args.slots) - 1;
  unsigned h = hash(key) & mask;
  for (int tries = 0; tries < args.slots && m.keys[h] != kEmpty; ++tries, h = (h + 1) & mask)
    if (m.keys[h] == key) return m.ids[h];
  return -1;
}

constexpr int kTileSlots = 4096;  // of a table that holds a tile's vertices, at most three quarters of it
static_assert(kTileSlots * 3 / 4 >= kTileCorners, "the search for a free slot ends");

struct TileTable {
  Key keys[kTileSlots];
  uint16_t place[kTileSlots];     // in the list
  uint16_t listed[kTileCorners];  // the list: slots of this table
  int length;
};

__device__ inline int insert_here(TileTable* table, Key key) {
  for (unsigned h = hash(key) % kTileSlots;; h = (h + 1) % kTileSlots) {
    Key seen = *const_cast<volatile Key*>(&table->keys[h]);  // most are there already
    if (seen == kEmpty) seen = atomicCAS(&table->keys[h], kEmpty, key);
    if (seen == kEmpty || seen == key) return int(h);
  }
}

template <int D>
__device__ void find_corners(const Term& term, const uint8_t* rgb, int x, int y, bool real, Key* key, float* weight) {
  float point[D];
#pragma unroll
  for (int i = 0; i < D; ++i) {
    const int feature = i == 0 ? x : i == 1 ? y : real ? rgb[i - 2] : 0;
    point[i] = real ? (float(feature) / term.deviation[i]) * term.scale[i] : 0.0f;
  }
  locate<D>(point, key, weight);
}

// A tile: its pixels' corners and weights, its list of vertices, and these in the table of all. Pixels of a tile that
// are not in the image have no weight.
template <int D>
__device__ void add_tile(const Memory& m, const Args& args, const Term& term, const uint8_t* image, TileTable* table) {
  const Spot spot(args.width);
  for (int h = threadIdx.x; h < kTileSlots; h += blockDim.x) table->keys[h] = kEmpty;
  if (threadIdx.x == 0) table->length = 0;
  __syncthreads();
  Key key[D + 1], before[D + 1];
  float weight[D + 1];
  int slot[D + 1];
#pragma unroll 1
  for (int i = 0; i < kPerThread; ++i) {
    const int x = min(spot.x + i, args.width - 1), y = min(spot.y, args.height - 1);
    const bool inside = spot.x + i < args.width && spot.y < args.height;
    find_corners<D>(term, image + 3 * (int64_t(y) * args.width + x), x, y, true, key, weight);
#pragma unroll
    for (int k = 0; k <= D; ++k) {
      if (i == 0 || key[k] != before[k]) slot[k] = insert_here(table, key[k]);
      before[k] = key[k];
      m.local[spot.at(k) + i] = uint16_t(slot[k]);
      m.weight[spot.at(k) + i] = inside ? weight[k] : 0.0f;
    }
  }
  __syncthreads();
  for (int h = threadIdx.x; h < kTileSlots; h += blockDim.x) {
    if (table->keys[h] == kEmpty) continue;
    const int place = atomicAdd(&table->length, 1);
    table->place[h] = uint16_t(place);
    table->listed[place] = uint16_t(h);
  }
  __syncthreads();
  // Side by side, as each search waits for the table of all.
  const int length = table->length;
  for (int i = threadIdx.x; i - int(threadIdx.x) < length; i += blockDim.x) {
    int slot = 0;
    bool added = false;
    if (i < length) {
      slot = insert(m, args, table->keys[table->listed[i]], &added);
      m.list[int64_t(spot.tile) * kTileCorners + i] = slot;
    }
    number(m, args, slot, added);
  }
  // The CPU's lattice follows pydensecrf, which rounds the pixels up to a multiple of four with features 0.
  if (blockIdx.x == 0 && threadIdx.x < 32 && int64_t(args.height) * args.width % 4 != 0) {
    find_corners<D>(term, image, 0, 0, false, key, weight);
#pragma unroll
    for (int k = 0; k <= D; ++k) {
      bool added = false;
      const int slot = threadIdx.x == 0 ? insert(m, args, key[k], &added) : 0;
      number(m, args, slot, added);
    }
  }
  for (int i = 0; i < kPerThread; ++i)
#pragma unroll
    for (int k = 0; k <= D; ++k) m.local[spot.at(k) + i] = table->place[m.local[spot.at(k) + i]];
  if (threadIdx.x == 0) m.lengths[spot.tile] = length;
}

// The rows next to a vertex in direction j.
template <int D>
__device__ Near neighbours(const Memory& m, const Args& args, int vertex, int j) {
  const Key key = m.keys[m.slot[vertex]];
  return {find(m, args, Codec<D>::up(key, j)) + 1, find(m, args, Codec<D>::down(key, j)) + 1};
}

}  // namespace lidcam::crf::cuda
