// What a launch of the CUDA kernels of the dense CRF needs to know; read by nvcc and by the host's compiler.
#pragma once
#include <cstdint>

#ifdef __CUDACC__
#define LIDCAM_BOTH __host__ __device__
#else
#define LIDCAM_BOTH
#endif

namespace lidcam::crf::cuda {

constexpr int kThreads = 512, kMaxTerms = 4, kCorners = 6;

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
  int shared_bytes;
  int channels;  // largest number in a table
  int numbers;   // whether each compat is a number
  int lists;     // the word at which the labels present begin, their number before them; -1 where all are
  int list;      // words from an image's labels to the next image's; 0: all have the same
  float tolerance;
  Term term[kMaxTerms];
};

// Two labels are one channel, q1 - q0, where each compat is a number.
LIDCAM_BOTH constexpr int channels(int labels, bool numbers) { return labels == 2 && numbers ? 1 : labels; }

// What one launch of lidcam_crf_words writes: arguments of a kernel have 4 KB.
struct Words {
  int count;
  int value[960];
};

// Where things lie in the memory of one term of one image, bytes. Arrays over corners are [corner][pixel].
struct Place {
  int64_t keys, ids, counts, neighbor, row, weight, norm, first, second, wide, bytes;
};

LIDCAM_BOTH constexpr Place place(int64_t pixels, int64_t capacity, int64_t slots, int channels) {
  Place p{};
  p.keys = 0;                                 // uint64 [slots]
  p.ids = p.keys + 8 * slots;                 // int32 [slots], vertex of a slot
  p.row = p.ids + 4 * slots;                  // int32 [6, pixels], table rows
  p.weight = p.row + 4 * kCorners * pixels;   // float [6, pixels], barycentric
  p.norm = p.weight + 4 * kCorners * pixels;  // float [pixels]
  p.first = p.norm + 4 * pixels;              // float [capacity + 1, channels], and once more
  p.second = p.first + 4 * (capacity + 1) * channels;
  p.wide = (p.second + 4 * (capacity + 1) * channels + 7) / 8 * 8;  // int64 [capacity + 1]
  p.counts = p.wide + 8 * (capacity + 1);  // int32: vertices; largest weight of a vertex; 2 changes
  p.neighbor = p.counts + 16;              // int32 [6, 2, capacity], table rows
  p.bytes = (p.neighbor + 4 * 2 * kCorners * capacity + 15) / 16 * 16;
  return p;
}

}  // namespace lidcam::crf::cuda
