// What a launch of the CUDA kernels of the dense CRF needs to know; read by nvcc and by the host's compiler.
#pragma once
#include <cstdint>

#ifdef __CUDACC__
#define LIDCAM_BOTH __host__ __device__
#else
#define LIDCAM_BOTH
#endif

namespace lidcam::crf::cuda {

constexpr int kThreads = 256, kMaxTerms = 4, kCorners = 6, kCounts = 8;

enum Compat : int { kNumber = 0, kVector = 1, kMatrix = 2 };

// One term: Gaussian (dimension 2: x, y) or bilateral (5: x, y and the channels).
struct Term {
  int dimension;
  float deviation[5];  // standard deviations
  float scale[5];      // the lattice's, after the division
  float alpha;         // factor of the blur
  float weight;        // of a number as compat
  int compat;          // Compat; where an array begins among the words:
  int array;
  int before, after;  // whether values are normalised before the splat, after the slice
};

struct Args {
  int64_t words;  // byte of the memory at which the arrays begin that all images share: compat, labels present
  int64_t kept;   // and the probabilities of the last step, float [image, channels, pixels]; 0 where not needed
  int labels, height, width, terms, iterations;
  int capacity;  // vertices that a term may have
  int slots;     // of the hash table: a power of two, more than capacity
  int channels;  // largest number in a table
  int numbers;   // whether each compat is a number
  int lists;     // the word at which the labels present begin, their number before them; -1 where all are
  int list;      // words from an image's labels to the next image's; 0: all have the same
  float tolerance;
  Term term[kMaxTerms];
};

// Two labels are one channel, q1 - q0, where each compat is a number.
LIDCAM_BOTH constexpr int channels(int labels, bool numbers) { return labels == 2 && numbers ? 1 : labels; }

// The device arrays of a call.
struct Arrays {
  const uint8_t* image;
  const float* unary;
  unsigned char* memory;
  float* q;
  int* status;
};

// What one launch of lidcam_crf_words writes: arguments of a kernel have 4 KB.
struct Words {
  int count;
  int value[960];
};

// The rows next to a vertex in one direction; 0 where there is none.
struct alignas(8) Near {
  int up, down;
};

// Pixels lie in tiles, row by row in each. The vertices around a tile are few: its pixels name them by their place in
// the tile's list, sum up in shared memory, and only the sums of the list go to the table of all vertices.
constexpr int kTileWidth = 32, kTileHeight = 16, kTilePixels = kTileWidth * kTileHeight;
constexpr int kPerThread = 4, kTileThreads = kTilePixels / kPerThread;  // pixels in a row
constexpr int kTileCorners = kTilePixels * kCorners;                    // the longest list

LIDCAM_BOTH constexpr int tiles_across(int width) { return (width + kTileWidth - 1) / kTileWidth; }
LIDCAM_BOTH constexpr int tiles(int height, int width) {
  return tiles_across(width) * ((height + kTileHeight - 1) / kTileHeight);
}

// Where things lie in the memory of one term of one image, bytes.
struct Place {
  int64_t keys, near, sums, weight, norm, local, list, lengths, heaviest, ids, slot, first, second, counts, bytes;
};

LIDCAM_BOTH constexpr Place place(int64_t tiles, int64_t capacity, int64_t slots, int channels) {
  const int64_t rows = capacity + 1;
  Place p{};
  p.keys = 0;                                                // uint64 [slots]
  p.near = p.keys + 8 * slots;                               // Near [6, capacity], table rows
  p.sums = p.near + 8 * kCorners * capacity;                 // int64 [rows, channels]
  p.weight = (p.sums + 8 * rows * channels + 15) / 16 * 16;  // float [tile, 6, 512], barycentric
  p.norm = p.weight + 4 * tiles * kTileCorners;              // float [tile, 512]
  p.local = p.norm + 4 * tiles * kTilePixels;                // uint16 [tile, 6, 512], places in the tile's list
  p.list = p.local + 2 * tiles * kTileCorners;               // int32 [tile, 3072], table rows
  p.lengths = p.list + 4 * tiles * kTileCorners;             // int32 [tile], of the lists
  p.heaviest = p.lengths + 4 * tiles;  // int32 [tile], largest weight of a vertex of the tile, times 2^21
  p.ids = p.heaviest + 4 * tiles;      // int32 [slots], vertex of a slot
  p.slot = p.ids + 4 * slots;          // int32 [capacity], slot of a vertex
  p.first = p.slot + 4 * capacity;     // float [rows, channels], and once more
  p.second = p.first + 4 * rows * channels;
  p.counts = p.second + 4 * rows * channels;  // int32: vertices; bound of a sum; 2 changes; the iteration of rest
  p.bytes = (p.counts + 4 * kCounts + 15) / 16 * 16;
  return p;
}

}  // namespace lidcam::crf::cuda
