// The box of the largest connected component (8 neighbours) of each mask, one block per mask, on runs.
// The same boxes and ties as Finder::largest in components.cpp, without tracing a border: a border step between two
// rows lies at the left or right end of the contact of two runs, so twice the area inside the outer contour is the sum
// of the x of those steps, right ends minus left ends, that face the background around the component. To know which
// those are, the gaps between runs are joined as well (4 neighbours, as fits 8 for the foreground); the gaps that reach
// the edge of the mask are one region, node 0.
// Of two intervals that overlap, one starts last: every contact is seen from that end, so each run looks up one run in
// the row above and one in the row below, and no thread walks along a row.
#pragma once
#include <cstdint>

#include "components/runs.h"
#include "cuda/scan.cuh"

namespace lidcam::components::cuda {

constexpr int kLaneWords = 4;                // words that a lane reads at once
constexpr int kWarpWords = 32 * kLaneWords;  // words that a warp reads at once

struct Scratch {
  uint32_t sums[32];
  unsigned long long best[32];
  uint32_t before_x0, x1, y1;  // before_x0: width - x0
};

static_assert(sizeof(Scratch) <= kScratchBytes, "runs.h");

struct Span {
  uint16_t begin, end;  // end is the first pixel past the run
};

// Runs in scan order: those of row y are [first[y], first[y + 1]). Gap r is the one before run r; the gap after the
// last run of a row is that before the first of the next, and the parent of all of these is 0.
struct Runs {
  int* first;
  Span* span;
  uint16_t* row;
  int *parent, *gap;  // forests: of runs, and of gaps
  uint32_t* measure;  // of the run that is a root
};

__device__ inline int root(const int* forest, int i) {
  const volatile int* f = forest;
  for (int up = f[i]; up != i; up = f[i]) i = up;
  return i;
}

// The smaller root becomes the root of both; safe while other threads join.
__device__ inline void join(int* forest, int a, int b) {
  for (;;) {
    a = root(forest, a);
    b = root(forest, b);
    if (a == b) return;
    if (a < b) {
      const int c = a;
      a = b;
      b = c;
    }
    const int old = atomicMin(&forest[a], b);
    if (old == a) return;
    a = old;
  }
}

// The parent of node i becomes its root, unless others join meanwhile. All threads that do so at once help each other:
// paths halve at every step.
__device__ inline void compress(int* forest, int i) {
  const volatile int* f = forest;
  for (int up = f[i];;) {
    const int next = f[up];
    if (next == up) return;
    atomicMin(&forest[i], next);
    up = next;
  }
}

// How many of the runs [from, to) begin, or end, before x. Both ascend within a row.
__device__ inline int count_begun(const Span* span, int from, int to, int x) {
  const int start = from;
  while (from < to) {
    const int middle = (from + to) >> 1;
    if (span[middle].begin < x)
      from = middle + 1;
    else
      to = middle;
  }
  return from - start;
}
__device__ inline int count_ended(const Span* span, int from, int to, int x) {
  const int start = from;
  while (from < to) {
    const int middle = (from + to) >> 1;
    if (span[middle].end < x)
      from = middle + 1;
    else
      to = middle;
  }
  return from - start;
}

// The last gap of row y that starts before `limit`, given that it reaches beyond x; else -1. `next`: the gap that
// follows it, or -1.
__device__ inline int gap_at(const Runs& runs, int y, int x, int limit, int* next) {
  const int first = runs.first[y], n = runs.first[y + 1] - first, k = count_ended(runs.span, first, first + n, limit);
  *next = k < n ? k + 1 < n ? first + k + 1 : 0 : -1;
  if (k < n && runs.span[first + k].begin <= x) return -1;
  return k && k < n ? first + k : 0;
}

// The run of row y that touches a pixel run which begins at x, as the last that begins before `limit`; -1 for none.
__device__ inline int run_at(const Runs& runs, int y, int x, int limit) {
  const int first = runs.first[y], k = count_begun(runs.span, first, runs.first[y + 1], limit);
  return k && x <= runs.span[first + k - 1].end ? first + k - 1 : -1;
}

// A contact above from which a run's tree begins: of the runs or gaps above, the last that starts before it, else the
// first that starts within it.
__device__ inline int parent_of(const Runs& runs, int r) {
  const int y = runs.row[r];
  if (y == 0) return r;
  const Span mine = runs.span[r];
  const int first = runs.first[y - 1], end = runs.first[y];
  const int i = first + count_begun(runs.span, first, end, mine.begin);
  if (i > first && mine.begin <= runs.span[i - 1].end) return i - 1;
  return i < end && runs.span[i].begin <= mine.end ? i : r;
}

__device__ inline int parent_of_gap(const Runs& runs, int r) {
  const int y = runs.row[r];
  if (r == runs.first[y] || y == 0) return 0;
  const int from = runs.span[r - 1].end, to = runs.span[r].begin;
  int next;
  const int above = gap_at(runs, y - 1, from, from + 1, &next);
  if (above >= 0) return above;
  // The gap after begins where the run between them ends.
  const int first = runs.first[y - 1], n = runs.first[y] - first;
  const int between = next ? next - 1 : first + n - 1;
  return runs.span[between].end < to ? next : r;
}

// What parent_of_gap left out: contacts of the gap after run r.
__device__ inline void join_gaps(const Runs& runs, int r, int height) {
  const int y = runs.row[r], x = runs.span[r].end;
  int next;
  if (y > 0 && r + 1 == runs.first[y + 1]) {  // a gap at the right edge has the parent 0 instead of one above
    const int above = gap_at(runs, y - 1, x, x + 1, &next);
    if (above > 0) join(runs.gap, 0, above);
  }
  const int below = y + 1 < height ? gap_at(runs, y + 1, x, x, &next) : 0;
  if (below >= 0) join(runs.gap, r + 1, below);
}

// Twice the area that the steps between run i of a row and run j of the next add.
__device__ inline uint32_t steps(const Runs& runs, int i, int j, int around) {
  const Span a = runs.span[i], b = runs.span[j];
  const int a0 = a.begin, b0 = b.begin, a1 = a.end - 1, b1 = b.end - 1;
  uint32_t sum = 0;  // wraps on the way; twice an area is below 2^32
  if (runs.gap[(b1 < a1 ? j : i) + 1] == around) sum += uint32_t(min(a1, b1 + 1)) + uint32_t(min(b1, a1 + 1));
  if (runs.gap[b0 > a0 ? j : i] == around) sum -= uint32_t(max(a0, b0 - 1)) + uint32_t(max(b0, a0 - 1));
  return sum;
}

// measure[top] += sum for every lane of a warp, most of which have the same top.
__device__ inline void add_measures(uint32_t* measure, int top, uint32_t sum) {
  const uint32_t some = __ballot_sync(0xffffffffu, sum != 0);
  if (!some) return;
  const int leader = __ffs(int(some)) - 1, common = __shfl_sync(0xffffffffu, top, leader);
  const uint32_t total = lidcam::cuda::warp_sum(top == common ? sum : 0);
  if (int(threadIdx.x % 32) == leader)
    atomicAdd(&measure[common], total);
  else if (top != common && sum)
    atomicAdd(&measure[top], sum);
}

// The words of a mask, in the order of the scan.
struct Words {
  const uint32_t* bits;
  int height, width, per_row;
  int total;

  // This lane's words of a warp's chunk. starts, ends: the first and last pixels of runs; open: whether a run reaches
  // into the word from the one before.
  struct Part {
    int y, column;  // of the first word
    uint32_t starts[kLaneWords], ends[kLaneWords], open[kLaneWords];
    int count;  // of starts
  };
  __device__ Part part(int chunk) const {
    const int at = chunk * kWarpWords + int(threadIdx.x % 32) * kLaneWords;
    Part p;
    p.y = at / per_row;
    p.column = at - p.y * per_row;
    p.count = 0;
    struct alignas(4 * kLaneWords) Together {
      uint32_t v[kLaneWords];
    };
    Together mine{};
    if (at < total) mine = *reinterpret_cast<const Together*>(bits + at);  // padded to whole ones
    uint32_t word[kLaneWords + 2];
    word[0] = at > 0 && at < total ? bits[at - 1] : 0;
    word[kLaneWords + 1] = at + kLaneWords < total ? bits[at + kLaneWords] : 0;
#pragma unroll
    for (int k = 0; k < kLaneWords; ++k) word[k + 1] = at + k < total ? mine.v[k] : 0;
    int column = p.column;
#pragma unroll
    for (int k = 0; k < kLaneWords; ++k) {
      const uint32_t here = word[k + 1], before = column ? word[k] >> 31 : 0;
      if (++column == per_row) column = 0;
      const uint32_t after = column ? word[k + 2] << 31 : 0;
      p.starts[k] = here & ~(here << 1 | before);
      p.ends[k] = here & ~(here >> 1 | after);
      p.open[k] = here & before;
      p.count += __popc(p.starts[k]);
    }
    return p;
  }
};

// The rest of largest_box, with the number of runs known. kPlace: 0 all arrays in global memory, 1 the forest of runs
// in shared memory, 2 all there: written out so that the compiler knows.
template <int kPlace>
__device__ void solve(const Words& words, int* first, int count, int before, bool by_pixels, int* box, Scratch* s,
                      unsigned char* shared, unsigned char* memory) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32, height = words.height;
  unsigned char* const rest = kPlace == 2 ? shared : memory;
  Runs runs;
  runs.first = first;
  runs.parent = reinterpret_cast<int*>(kPlace ? shared : memory);
  runs.measure = reinterpret_cast<uint32_t*>(rest) + count;
  runs.span = reinterpret_cast<Span*>(runs.measure + count);
  runs.gap = reinterpret_cast<int*>(runs.span + count);  // count + 1
  runs.row = reinterpret_cast<uint16_t*>(runs.gap + count + 1);

  const int chunks = (words.total + kWarpWords - 1) / kWarpWords;
  const int last = int(int64_t(chunks) * (warp + 1) / warps);
#pragma unroll 1
  for (int chunk = int(int64_t(chunks) * warp / warps); chunk < last; ++chunk) {
    Words::Part p = words.part(chunk);
    const uint32_t up_to = lidcam::cuda::warp_inclusive_sum(uint32_t(p.count));
    int next = before + int(up_to) - p.count;
    before += int(__shfl_sync(0xffffffffu, up_to, 31));
#pragma unroll
    for (int k = 0; k < kLaneWords; ++k) {
      if (p.column == 0 && p.y < height) first[p.y] = next;
      const int x = p.column * 32;
      int ending = next - int(p.open[k]);
      for (uint32_t starts = p.starts[k]; starts; starts &= starts - 1) {
        runs.span[next].begin = uint16_t(x + __ffs(int(starts)) - 1);
        runs.row[next++] = uint16_t(p.y);
      }
      for (uint32_t ends = p.ends[k]; ends; ends &= ends - 1) runs.span[ending++].end = uint16_t(x + __ffs(int(ends)));
      if (++p.column == words.per_row) {
        p.column = 0;
        ++p.y;
      }
    }
  }
  if (threadIdx.x == 0) first[height] = count;
  __syncthreads();

  for (int r = threadIdx.x; r < count; r += blockDim.x) {
    runs.parent[r] = parent_of(runs, r);
    runs.measure[r] = 0;
    if (!by_pixels) runs.gap[r] = parent_of_gap(runs, r);
  }
  if (threadIdx.x == 0) {
    runs.gap[count] = 0;
    s->before_x0 = s->x1 = s->y1 = 0;
  }
  __syncthreads();

  for (int r = threadIdx.x; r < count; r += blockDim.x) {
    compress(runs.parent, r);
    if (!by_pixels) compress(runs.gap, r);
  }
  for (int r = threadIdx.x; r < count; r += blockDim.x) {
    const int y = runs.row[r];
    if (y + 1 < height) {
      const int x = runs.span[r].begin, below = run_at(runs, y + 1, x, x + 1);
      if (below >= 0) join(runs.parent, r, below);
    }
    if (!by_pixels) join_gaps(runs, r, height);
  }
  __syncthreads();
  for (int r = threadIdx.x; r < count; r += blockDim.x) {
    compress(runs.parent, r);
    if (!by_pixels) compress(runs.gap, r);
  }
  __syncthreads();

  for (int r0 = 32 * warp; r0 < count; r0 += blockDim.x) {
    const int r = r0 + lane;
    int top = 0;
    uint32_t sum = 0;
    if (r < count) {
      const Span mine = runs.span[r];
      top = runs.parent[r];
      if (by_pixels) {
        sum = uint32_t(mine.end) - mine.begin;
      } else {
        const int y = runs.row[r], around = runs.gap[top];  // what lies left of a component's first pixel surrounds it
        const int above = y > 0 ? run_at(runs, y - 1, mine.begin, mine.begin) : -1;
        const int below = y + 1 < height ? run_at(runs, y + 1, mine.begin, mine.begin + 1) : -1;
        if (above >= 0) sum += steps(runs, above, r, around);
        if (below >= 0) sum += steps(runs, r, below, around);
      }
    }
    add_measures(runs.measure, top, sum);
  }
  __syncthreads();

  // The run that is the root of the largest component; among equal ones the last by contour, the first by pixels. Never
  // 0, since the low half holds the root.
  unsigned long long best = 0;
  for (int r = threadIdx.x; r < count; r += blockDim.x) {
    if (runs.parent[r] != r) continue;
    const uint32_t tie = by_pixels ? 0xffffffffu - uint32_t(r) : uint32_t(r) + 1;
    best = max(best, (unsigned long long)(runs.measure[r]) << 32 | tie);
  }
  for (int d = 16; d; d /= 2) best = max(best, __shfl_xor_sync(0xffffffffu, best, d));
  if (lane == 0) s->best[warp] = best;
  __syncthreads();
  for (int i = 0; i < warps; ++i) best = max(best, s->best[i]);
  const int top = int(by_pixels ? 0xffffffffu - uint32_t(best) : uint32_t(best) - 1);

  const uint32_t width = uint32_t(words.width);
  uint32_t before_x0 = 0, x1 = 0, y1 = 0;
  for (int r = threadIdx.x; r < count; r += blockDim.x) {
    if (runs.parent[r] != top) continue;
    const Span mine = runs.span[r];
    before_x0 = max(before_x0, width - mine.begin);
    x1 = max(x1, uint32_t(mine.end));
    y1 = max(y1, runs.row[r] + 1u);
  }
  before_x0 = lidcam::cuda::warp_max(before_x0);
  x1 = lidcam::cuda::warp_max(x1);
  y1 = lidcam::cuda::warp_max(y1);
  if (lane == 0 && y1) {
    atomicMax(&s->before_x0, before_x0);
    atomicMax(&s->x1, x1);
    atomicMax(&s->y1, y1);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    box[0] = int(width - s->before_x0);
    box[1] = runs.row[top];
    box[2] = int(s->x1);
    box[3] = int(s->y1);
  }
}

// All threads of the block call it. `memory`: mask_bytes(height, width), the bits first.
__device__ inline void largest_box(int height, int width, bool by_pixels, int* box, unsigned char* shared,
                                   int shared_bytes, unsigned char* memory) {
  Scratch* s = reinterpret_cast<Scratch*>(shared);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  const int per_row = (width + 31) / 32;
  const Words words{reinterpret_cast<const uint32_t*>(memory), height, width, per_row, height * per_row};
  memory += (4 * int64_t(words.total) + 15) / 16 * 16;

  const int chunks = (words.total + kWarpWords - 1) / kWarpWords;
  const int last = int(int64_t(chunks) * (warp + 1) / warps);
  uint32_t mine = 0;
#pragma unroll 2
  for (int chunk = int(int64_t(chunks) * warp / warps); chunk < last; ++chunk) mine += words.part(chunk).count;
  mine = lidcam::cuda::warp_sum(mine);
  if (lane == 0) s->sums[warp] = mine;
  __syncthreads();
  const uint32_t up_to = lidcam::cuda::warp_inclusive_sum(lane < warps ? s->sums[lane] : 0);
  const int count = int(__shfl_sync(0xffffffffu, up_to, 31));
  const int before = warp ? int(__shfl_sync(0xffffffffu, up_to, warp - 1)) : 0;
  if (count == 0) {
    if (threadIdx.x < 4) box[threadIdx.x] = -1;
    return;
  }

  unsigned char* free = shared + kScratchBytes;
  const int64_t rows = 4 * (int64_t(height) + 1), left = shared_bytes - kScratchBytes - rows;
  const int64_t all = kBytesPerRun * int64_t(count) + 4;
  if (all <= left)
    solve<2>(words, reinterpret_cast<int*>(free), count, before, by_pixels, box, s, free + rows, memory + rows);
  else if (4 * int64_t(count) <= left)
    solve<1>(words, reinterpret_cast<int*>(free), count, before, by_pixels, box, s, free + rows, memory + rows);
  else
    solve<0>(words, reinterpret_cast<int*>(left >= 0 ? free : memory), count, before, by_pixels, box, s, free,
             memory + rows);
}

}  // namespace lidcam::components::cuda
