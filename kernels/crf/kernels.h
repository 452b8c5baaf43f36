// The inner loops. They are compiled once per instruction set from one source and give the same bits on each:
// the sums have a fixed order and nothing is contracted.
#pragma once
#include "crf/lattice.h"

namespace lidcam::crf {

constexpr int kBlock = 64;  // points that are located at once
constexpr int kRows = 512;   // pixels of a block with any number of labels, at most

// Simplices of kBlock points: remainder-0 corner divided by (dimension + 1), order of the coordinates.
struct Located {
  alignas(64) int32_t base[kMaxDimension + 1][kBlock];
  alignas(64) int32_t rank[kMaxDimension + 1][kBlock];
  alignas(64) uint64_t key[kBlock];  // both packed, valid where `narrow`
  bool narrow;
};

// The hash table of table.h. Hashes are products: keys of neighbours differ by constants, and so do their hashes.
constexpr uint64_t kHash = 0x2545F4914F6CDD1Dull, kEachByte = 0x0101010101010101ull;
struct Slots {
  const uint64_t* words;
  const int32_t* ids;
  const uint64_t* keys;
  int shift;
};
// The byte of a hash that its bucket's word holds.
LIDCAM_INLINE uint64_t hash_tag(uint64_t hash, int shift) {
  const uint64_t tag = (hash >> (shift - 8)) & 255;
  return tag | uint64_t(tag == 0);
}
// The high bit of bytes that are zero; of the bytes above the lowest such, perhaps also of others.
LIDCAM_INLINE uint64_t zero_bytes(uint64_t word) { return (word - kEachByte) & ~word & (kEachByte << 7); }

// One pairwise term while mean field runs.
struct Field {
  const Lattice* lattice = nullptr;
  float weight = 0;               // of Potts, two labels
  const float* factor = nullptr;  // of the message of each label, [width]
  float *values = nullptr, *spare = nullptr;  // vertex tables: sliced from, splatted to
};

struct FastKernels;
struct TileKernels;

struct Kernels {
  const char* name;
  const FastKernels& fast;   // fast.h
  const TileKernels& tiles;  // tiles.h

  // points: [dimension][kBlock] features times the lattice's scale. records: [kBlock, stride],
  // weights and a norm of 1 are written, and up to two floats behind them.
  void (*locate)(int dimension, const float (*points)[kBlock], Located& out, float* records);
  // kBlock keys: the id plus 1; 0 where there is none; -1 where the first bucket does not tell.
  void (*look_up)(const Slots& t, const uint64_t* keys, int32_t* found);
  // The packed keys of the corners of kBlock simplices, [dimension + 1][kBlock].
  void (*corners)(int dimension, const uint64_t* simplices, uint64_t (*keys)[kBlock]);
  bool (*finite)(const float* values, size_t count);

  // Normalisation. table: [vertices + 1].
  void (*splat_ones)(const Lattice& t, float* table);
  float* (*blur)(const Lattice& t, float* table, float* spare);
  void (*norms)(const Lattice& t, const float* rows, bool root, float* record);  // rows: of pairs, see expand_pairs

  // Two labels. Tables: [vertices + 1, 2]; q, energy: [count, 2] of the pixels from `first` on.
  void (*splat_pairs)(const Lattice& t, const float* q, int64_t first, int64_t count, float* table);
  // Of dimensions 2 and 5.
  void (*splat_two)(const Lattice& t, const Lattice& u, const float* q, int64_t first, int64_t count, float* table,
                    float* other);
  float* (*blur_pairs)(const Lattice& t, float* table, float* spare);
  void (*expand_pairs)(const Lattice& t, const float* table, float* rows);  // to rows of 4 or 8 pairs
  void (*slice_pairs)(const Lattice& t, const float* rows, float weight, int64_t first, int64_t count, float* energy);
  void (*softmax_pairs)(float* rows, int64_t count);
  float (*moved)(const float* a, const float* b, int64_t count);

  // Any number of labels, in rows of `width` floats, a multiple of 8. Tables (of vertices + 1 rows) and blocks of
  // pixels (of `block` rows) are cut in parts of 16 labels, the last one of 8 where that is enough; see many.inc. Of a
  // block the first `count` rows are pixels, from `first` on.
  // rows: energy plus the messages; they may be the same.
  void (*slice_many)(const Field* fields, size_t terms, const float* energy, int width, int block, int64_t first,
                     int count, float* rows);
  void (*splat_many)(const Field* fields, size_t terms, const float* q, int width, int block, int64_t first, int count);
  void (*softmax)(float* rows, int labels, int width, int block, int count);  // in place, block <= kRows
  float* (*blur_many)(const Lattice& t, float* table, float* spare, int width);
  // Rows times compat [labels, width]. scratch: [2, width].
  void (*compatibility)(float* table, int64_t rows, int labels, int width, const float* compat, float* scratch);
  // in: [labels, stride] planes; out: a block, the rest of a row `padding`; sign times the value.
  void (*interleave)(const float* in, int64_t stride, int labels, int count, float sign, float padding, int width,
                     int block, float* out);
  void (*separate)(const float* in, int width, int labels, int block, int count, int64_t stride, float* out);
};

const Kernels& kernels();
// "avx512", "avx2", "baseline" or "auto"; false where this machine or build lacks it.
bool use_kernels(const char* name);

extern const Kernels kBaseline;
#if defined(LIDCAM_CRF_X86)
extern const Kernels kAvx2, kAvx512;
#endif

}  // namespace lidcam::crf
