// The box of the largest connected component (8 neighbours) of each mask, one block per mask, on runs.
// The same boxes and ties as Finder::largest in components.cpp, without tracing a border: a border step between two
// rows lies at the left or right end of the contact of two runs, so twice the area inside the outer contour is the sum
// of the x of those steps, right ends minus left ends, that face the background around the component. To know which
// those are, the gaps between runs are joined as well (4 neighbours, as fits 8 for the foreground); the gaps that reach
// the edge of the mask are one region, node 0.
#pragma once
#include <cstdint>

#include "components/runs.h"
#include "cuda/scan.cuh"

namespace lidcam::components::cuda {

constexpr int kChunk = 16;  // pixels that a lane takes at once

struct Scratch {
  uint32_t sums[32];
  unsigned long long best[32];
  int x0, x1, y1;
};

// A mask in memory, nonzero is foreground.
struct MaskSource {
  const uint8_t* mask;
  int width;
  bool wide;

  __device__ MaskSource(const uint8_t* m, int w)
      : mask(m), width(w), wide(w % kChunk == 0 && reinterpret_cast<uintptr_t>(m) % 16 == 0) {}
  // Bit i: pixel (y, x + i).
  __device__ uint32_t bits(int y, int x) const {
    const uint8_t* row = mask + int64_t(y) * width;
    uint32_t result = 0;
    if (wide) {
      struct alignas(16) Words {
        uint32_t v[4];
      };
      const Words words = *reinterpret_cast<const Words*>(row + x);
#pragma unroll
      for (int i = 0; i < kChunk; ++i) result |= uint32_t((words.v[i / 4] >> (8 * (i % 4)) & 0xff) != 0) << i;
      return result;
    }
    const int n = min(kChunk, width - x);
    for (int i = 0; i < n; ++i) result |= uint32_t(row[x + i] != 0) << i;
    return result;
  }
};

// One output of one axis of cv2.resize(..., INTER_LINEAR) on bytes: two sources and their weights in 1 / 2048.
struct LinearTap {
  int16_t first, second, weight_first, weight_second;
};

// The arithmetic of OpenCV's resize of bytes. Along x a position outside takes the edge; along y the two rows are
// clamped one by one, which is not the same where a map has one row.
__device__ inline LinearTap linear_tap(int i, int n_in, int n_out, bool along_x) {
  const double scale = 1.0 / (double(n_out) / double(n_in));
  const float position = float((double(i) + 0.5) * scale - 0.5);
  int first = int(floorf(position));
  float share = position - float(first);
  if (along_x && (first < 0 || first >= n_in - 1)) {
    first = first < 0 ? 0 : n_in - 1;
    share = 0.0f;
  }
  const int second = min(max(first + 1, 0), n_in - 1);
  first = min(max(first, 0), n_in - 1);
  return {int16_t(first), int16_t(second), int16_t(rintf((1.0f - share) * 2048.0f)), int16_t(rintf(share * 2048.0f))};
}

// map resized to (height, width) > level, made pixel by pixel and never stored.
struct ResizedSource {
  const uint8_t* map;
  int map_height, map_width, height, width;
  float level;
  const LinearTap *across, *down;

  __device__ int value(int y, int x) const {
    if (map_height == height && map_width == width) return map[int64_t(y) * width + x];
    if (map_height == 2 * height && map_width == 2 * width) {  // cv2 takes the mean of four
      const uint8_t* p = map + int64_t(2 * y) * map_width + 2 * x;
      return (p[0] + p[1] + p[map_width] + p[map_width + 1] + 2) >> 2;
    }
    const LinearTap a = across[x], d = down[y];
    const uint8_t *top = map + int64_t(d.first) * map_width, *bottom = map + int64_t(d.second) * map_width;
    const int upper = top[a.first] * a.weight_first + top[a.second] * a.weight_second;
    const int lower = bottom[a.first] * a.weight_first + bottom[a.second] * a.weight_second;
    return (((d.weight_first * (upper >> 4)) >> 16) + ((d.weight_second * (lower >> 4)) >> 16) + 2) >> 2;
  }
  __device__ uint32_t bits(int y, int x) const {
    const int n = min(kChunk, width - x);
    uint32_t result = 0;
    for (int i = 0; i < n; ++i) result |= uint32_t(float(value(y, x + i)) > level) << i;
    return result;
  }
};

// Runs in scan order: those of row y are [first[y], first[y + 1]).
struct Runs {
  int *first, *begin, *end;  // end is the first pixel past the run
  int *parent, *gap;         // forests: of runs, and of the gaps before runs (run r: node r, or 0 at the left edge)
  int* left;                 // the node of the gap before run r; that after run r is left[r + 1]
  uint32_t* measure;         // of the run that is a root
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

// Every node of a forest gets its root as parent, by doubling.
__device__ inline void flatten(int* forest, int n) {
  volatile int* f = forest;
  bool changed = true;
  while (__syncthreads_or(changed)) {
    changed = false;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
      const int up = f[i], next = f[up];
      if (next == up) continue;
      f[i] = next;
      changed = true;
    }
  }
}

// visit(i, j) for every run i of row y - 1 and j of row y that touch.
template <class Visit>
__device__ void contacts(const Runs& runs, int y, Visit visit) {
  int i = runs.first[y - 1], j = runs.first[y];
  const int i_end = runs.first[y], j_end = runs.first[y + 1];
  while (i < i_end && j < j_end) {
    const int a = runs.end[i], b = runs.end[j];
    if (runs.begin[i] <= b && runs.begin[j] <= a) visit(i, j);
    i += a <= b;
    j += b <= a;
  }
}

__device__ inline void join_gaps(const Runs& runs, int y) {
  const int fi = runs.first[y - 1], fj = runs.first[y], ni = fj - fi, nj = runs.first[y + 1] - fj;
  constexpr int kFar = 0x7fffffff;
  for (int i = 0, j = 0; i <= ni && j <= nj;) {  // gap k of a row: before its run k
    const int i0 = i ? runs.end[fi + i - 1] : -1, i1 = i < ni ? runs.begin[fi + i] : kFar;
    const int j0 = j ? runs.end[fj + j - 1] : -1, j1 = j < nj ? runs.begin[fj + j] : kFar;
    if (max(i0, j0) < min(i1, j1)) join(runs.gap, i && i < ni ? fi + i : 0, j && j < nj ? fj + j : 0);
    i += i1 <= j1;
    j += j1 <= i1;
  }
}

// Calls start(x, k) and stop(x, k) for the k-th run of row y; gives the number of runs. A whole warp calls it.
template <class Source, class Start, class Stop>
__device__ int scan_row(const Source& source, int y, int width, Start start, Stop stop) {
  const int lane = threadIdx.x % 32;
  int starts = 0, stops = 0;
  uint32_t carry = 0;
  for (int x0 = 0; x0 < width; x0 += 32 * kChunk) {
    const int x = x0 + lane * kChunk;
    const uint32_t bits = x < width ? source.bits(y, x) : 0;
    uint32_t before = __shfl_up_sync(0xffffffffu, bits >> (kChunk - 1), 1);
    if (lane == 0) before = carry;
    carry = __shfl_sync(0xffffffffu, bits >> (kChunk - 1), 31);
    const uint32_t shifted = bits << 1 | before, all = (1u << kChunk) - 1;
    uint32_t up = bits & ~shifted, down = ~bits & shifted & all;
    const uint32_t mine = uint32_t(__popc(up)) << 16 | uint32_t(__popc(down));
    const uint32_t up_to = lidcam::cuda::warp_inclusive_sum(mine);  // both counts at once: at most 512 each
    const uint32_t total = __shfl_sync(0xffffffffu, up_to, 31);
    int k = starts + int((up_to - mine) >> 16);
    for (; up; up &= up - 1) start(x + __ffs(int(up)) - 1, k++);
    k = stops + int((up_to - mine) & 0xffff);
    for (; down; down &= down - 1) stop(min(x + __ffs(int(down)) - 1, width), k++);
    starts += int(total >> 16);
    stops += int(total & 0xffff);
  }
  if (lane == 0 && stops < starts) stop(width, stops);
  return starts;
}

// All threads of the block call it. `memory`: run_bytes(height, width), used where `shared` is too small.
template <class Source>
__device__ void largest_box(const Source& source, int height, int width, bool by_pixels, int* box,
                            unsigned char* shared, int shared_bytes, unsigned char* memory) {
  Scratch* s = reinterpret_cast<Scratch*>(shared);
  unsigned char* free = shared + sizeof(Scratch);
  int left = shared_bytes - int(sizeof(Scratch));
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  Runs runs{};
  if (4 * (int64_t(height) + 1) <= left) {
    runs.first = reinterpret_cast<int*>(free);
    free += 4 * (height + 1);
    left -= 4 * (height + 1);
  } else {
    runs.first = reinterpret_cast<int*>(memory);
  }
  memory += 4 * (int64_t(height) + 1);

  for (int y = warp; y < height; y += warps) {
    const int n = scan_row(source, y, width, [](int, int) {}, [](int, int) {});
    if (lane == 0) runs.first[y + 1] = n;
  }
  if (threadIdx.x == 0) {
    s->x0 = width;
    s->x1 = s->y1 = 0;
  }
  __syncthreads();
  const int per = (height + blockDim.x - 1) / blockDim.x, row = threadIdx.x * per, row_end = min(row + per, height);
  uint32_t mine = 0;
  for (int y = row; y < row_end; ++y) mine += uint32_t(runs.first[y + 1]);
  const uint32_t up_to = lidcam::cuda::warp_inclusive_sum(mine);
  if (lane == 31) s->sums[warp] = up_to;
  __syncthreads();
  uint32_t before = up_to - mine;
  for (int i = 0; i < warp; ++i) before += s->sums[i];
  for (int y = row; y < row_end; ++y) {
    before += uint32_t(runs.first[y + 1]);
    runs.first[y + 1] = int(before);
  }
  if (threadIdx.x == 0) runs.first[0] = 0;
  __syncthreads();

  const int count = runs.first[height];
  if (count == 0) {
    if (threadIdx.x < 4) box[threadIdx.x] = -1;
    return;
  }
  int* words = reinterpret_cast<int*>(kBytesPerRun * (int64_t(count) + 1) <= left ? free : memory);
  runs.begin = words;
  runs.end = runs.begin + count;
  runs.parent = runs.end + count;
  runs.measure = reinterpret_cast<uint32_t*>(runs.parent + count);
  runs.left = reinterpret_cast<int*>(runs.measure + count);  // count + 1
  runs.gap = runs.left + count + 1;                          // count + 1
  for (int y = warp; y < height; y += warps) {
    const int first = runs.first[y];
    scan_row(
        source, y, width,
        [&](int x, int k) {
          runs.begin[first + k] = x;
          runs.left[first + k] = k ? first + k : 0;
        },
        [&](int x, int k) { runs.end[first + k] = x; });
  }
  for (int r = threadIdx.x; r < count; r += blockDim.x) {
    runs.parent[r] = r;
    runs.measure[r] = 0;
  }
  for (int g = threadIdx.x; g <= count; g += blockDim.x) runs.gap[g] = g;
  if (threadIdx.x == 0) runs.left[count] = 0;
  __syncthreads();

  for (int y = threadIdx.x; y < height; y += blockDim.x) {
    if (y > 0) {
      contacts(runs, y, [&](int i, int j) { join(runs.parent, i, j); });
      if (!by_pixels) join_gaps(runs, y);
    }
    if (!by_pixels && (y == 0 || y == height - 1))
      for (int r = runs.first[y]; r + 1 < runs.first[y + 1]; ++r) join(runs.gap, 0, r + 1);
  }
  flatten(runs.parent, count);
  flatten(runs.gap, count + 1);

  if (by_pixels) {
    for (int r = threadIdx.x; r < count; r += blockDim.x)
      atomicAdd(&runs.measure[runs.parent[r]], uint32_t(runs.end[r] - runs.begin[r]));
  } else {
    for (int y = 1 + threadIdx.x; y < height; y += blockDim.x) {
      contacts(runs, y, [&](int i, int j) {
        const int top = runs.parent[i];
        const int around = runs.gap[runs.left[top]];  // to the left of a component's first pixel is what surrounds it
        const int a0 = runs.begin[i], b0 = runs.begin[j], a1 = runs.end[i] - 1, b1 = runs.end[j] - 1;
        uint32_t sum = 0;  // wraps on the way; twice an area is below 2^32
        if (runs.gap[runs.left[(b1 < a1 ? j : i) + 1]] == around)
          sum += uint32_t(min(a1, b1 + 1)) + uint32_t(min(b1, a1 + 1));
        if (runs.gap[runs.left[b0 > a0 ? j : i]] == around)
          sum -= uint32_t(max(a0, b0 - 1)) + uint32_t(max(b0, a0 - 1));
        if (sum) atomicAdd(&runs.measure[top], sum);
      });
    }
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

  int x0 = width, x1 = 0, y1 = 0;
  for (int y = threadIdx.x; y < height; y += blockDim.x)
    for (int r = runs.first[y]; r < runs.first[y + 1]; ++r) {
      if (r == top) box[1] = y;
      if (runs.parent[r] != top) continue;
      x0 = min(x0, runs.begin[r]);
      x1 = max(x1, runs.end[r]);
      y1 = y + 1;
    }
  if (y1) {
    atomicMin(&s->x0, x0);
    atomicMax(&s->x1, x1);
    atomicMax(&s->y1, y1);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    box[0] = s->x0;
    box[2] = s->x1;
    box[3] = s->y1;
  }
}

}  // namespace lidcam::components::cuda
