// Masks as bits, one kernel over the whole grid: from a mask in bytes, or from a map that is resized and compared with
// a level. Pixel x of a row is bit x % 32 of word x / 32; bits past the row's end are 0.
#pragma once
#include <cstdint>

#include "components/runs.h"

namespace lidcam::components::cuda {

// Bit i: byte i is not 0.
__device__ inline uint32_t bits_of_four(uint32_t bytes) {
  const uint32_t high = (((bytes & 0x7f7f7f7fu) + 0x7f7f7f7fu) | bytes) & 0x80808080u;
  return ((high >> 7) * 0x10204080u) >> 28;
}

__device__ inline uint32_t bits_of_sixteen(const uint8_t* bytes) {
  struct alignas(16) Words {
    uint32_t v[4];
  };
  const Words words = *reinterpret_cast<const Words*>(bytes);
  return bits_of_four(words.v[0]) | bits_of_four(words.v[1]) << 4 | bits_of_four(words.v[2]) << 8 |
         bits_of_four(words.v[3]) << 12;
}

// Words [part * blockDim.x, ...) of one mask uint8 [height, width]: a word per thread.
__device__ inline void make_mask_bits(const uint8_t* mask, int height, int width, int64_t part, uint32_t* bits) {
  const int words = (width + 31) / 32, lane = threadIdx.x % 32;
  const int64_t total = int64_t(height) * words, mine = part * blockDim.x + threadIdx.x;
  if (width % 16 == 0 && reinterpret_cast<uintptr_t>(mask) % 16 == 0) {
    if (mine >= total) return;
    const int y = int(mine / words), x = int(mine - int64_t(y) * words) * 32;
    const uint8_t* from = mask + int64_t(y) * width + x;
    uint32_t word = bits_of_sixteen(from);
    if (x + 16 < width) word |= bits_of_sixteen(from + 16) << 16;
    bits[mine] = word;
    return;
  }
  uint32_t word = 0;
  const int64_t first = mine - lane;
#pragma unroll 8
  for (int k = 0; k < 32; ++k) {
    const int64_t at = first + k;
    const int y = int(at / words), x = int(at - int64_t(y) * words) * 32 + lane;
    const uint32_t all = __ballot_sync(0xffffffffu, at < total && x < width && mask[int64_t(y) * width + x] != 0);
    if (lane == k) word = all;
  }
  if (mine < total) bits[mine] = word;
}

// One output of one axis of cv2.resize(..., INTER_LINEAR) on bytes: two sources and their weights in 1 / 2048.
struct LinearTap {
  int first, second, weight_first, weight_second;
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
  return {first, second, int(rintf((1.0f - share) * 2048.0f)), int(rintf(share * 2048.0f))};
}

// Tile number `part` of one map uint8 [map_height, map_width], resized to (height, width) > level: a column per thread,
// kBitRows rows. Each lane makes the weights of its column, and those of one of the rows for its warp.
__device__ inline void make_map_bits(const uint8_t* map, int map_height, int map_width, float level, int height,
                                     int width, int64_t part, uint32_t* bits) {
  const int words = (width + 31) / 32, lane = threadIdx.x % 32;
  const int tiles = (width + blockDim.x - 1) / blockDim.x, top = int(part / tiles) * kBitRows;
  const int x = int(part % tiles) * int(blockDim.x) + int(threadIdx.x), column = min(x, width - 1);
  if (x - lane >= width) return;  // a whole warp
  const bool same = map_height == height && map_width == width;
  const bool half = map_height == 2 * height && map_width == 2 * width;  // cv2 takes the mean of four
  LinearTap a{}, d{};
  if (!same && !half) {
    a = linear_tap(column, map_width, width, true);
    d = linear_tap(min(top + lane % kBitRows, height - 1), map_height, height, false);
  }
  const int rows = d.first | d.second << 16, weights = d.weight_first | d.weight_second << 16;
  uint32_t word = 0;
#pragma unroll 4
  for (int k = 0; k < kBitRows; ++k) {
    const int row = __shfl_sync(0xffffffffu, rows, k), weight = __shfl_sync(0xffffffffu, weights, k);
    const int y = min(top + k, height - 1);
    int value;
    if (same) {
      value = map[int64_t(y) * width + column];
    } else if (half) {
      const uint8_t* p = map + int64_t(2 * y) * map_width + 2 * column;
      value = (p[0] + p[1] + p[map_width] + p[map_width + 1] + 2) >> 2;
    } else {
      const uint8_t *above = map + int64_t(row & 0xffff) * map_width, *below = map + int64_t(row >> 16) * map_width;
      const int upper = above[a.first] * a.weight_first + above[a.second] * a.weight_second;
      const int lower = below[a.first] * a.weight_first + below[a.second] * a.weight_second;
      value = ((((weight & 0xffff) * (upper >> 4)) >> 16) + (((weight >> 16) * (lower >> 4)) >> 16) + 2) >> 2;
    }
    const uint32_t all = __ballot_sync(0xffffffffu, x<width&& float(value)> level);
    if (lane == k) word = all;
  }
  if (lane < kBitRows && top + lane < height) bits[int64_t(top + lane) * words + (x >> 5)] = word;
}

}  // namespace lidcam::components::cuda
