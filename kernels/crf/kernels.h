// The inner loops, compiled once per instruction set from kernels.cpp. Every set gives the same bits, since sums have a
// fixed order and nothing is contracted; only ManyFastKernels of AVX-512 fuse products and sums.
#pragma once
#include "cpu/isa.h"
#include "crf/lattice.h"

namespace lidcam::crf {

constexpr int kBlock = 64;  // points that are located at once
constexpr int kRows = 512;  // largest number of pixels in a block of rows

// --- Building a lattice

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

struct LatticeKernels {
  // points: [dimension][kBlock] features times the lattice's scale. records: [kBlock, stride]; weights and a norm of 1
  // are written, and up to two floats behind them.
  void (*locate)(int dimension, const float (*points)[kBlock], Located& out, float* records);
  // kBlock keys: the id plus 1; 0 where there is none; -1 where the first bucket does not decide.
  void (*look_up)(const Slots& t, const uint64_t* keys, int32_t* ids);
  // The packed keys of the corners of kBlock simplices, [dimension + 1][kBlock].
  void (*corners)(int dimension, const uint64_t* simplices, uint64_t (*keys)[kBlock]);
  // Normalisation. table: [vertices + 1]. Functions with `first` and `count` work on `count` pixels, simplices or
  // vertices from `first` on, at most kChunk of sweep.h; the arrays are the whole ones.
  void (*splat_ones)(const Lattice& t, int64_t first, int64_t count, float* table);
  void (*blur)(const Lattice& t, int axis, int64_t first, int64_t count, const float* table, float* spare);
  // To rows of 4 or 8 pairs, one per simplex.
  void (*expand_pairs)(const Lattice& t, int64_t first, int64_t count, const float* table, float* rows);
  void (*norms)(const Lattice& t, const float* rows, bool root, int64_t first, int64_t count, float* record);
};

// --- Two labels, pydensecrf's order of sums

struct TwoExactKernels {
  // Tables: [vertices + 1, 2]; q, energy: [count, 2] of the pixels from `first` on.
  void (*splat)(const Lattice& t, const float* q, int64_t first, int64_t count, float* table);
  // For lattices of dimensions 2 and 5 together.
  void (*splat_both)(const Lattice& t, const Lattice& u, const float* q, int64_t first, int64_t count, float* table,
                     float* other);
  void (*blur)(const Lattice& t, int axis, int64_t first, int64_t count, const float* table, float* spare);
  void (*slice)(const Lattice& t, const float* rows, float weight, int64_t first, int64_t count, float* energy);
  void (*softmax)(float* rows, int64_t count);
};

// --- Two labels, sums in the fastest order: one channel (Q0 - Q1), folded lattices (fold.h)

constexpr int kFastBlock = 64;  // pixels at once; arrays of pixels are padded to a multiple of it
// A record's last float is the simplex, moved to where integers are ordinary floats: the vectors hold it as one.
constexpr uint32_t kSimplexBits = 0x20000000u;

// A term while mean field runs. Dimension 2: weights of 3 corners, rows of 4 floats; dimension 5: 6 corners, 8 floats.
// lines: [simplices, 2, 4 or 8], per simplex what is sliced from its corners and what was splatted to them. Null where
// few pixels share a simplex: they then slice from the table and splat to the spare one.
struct FastTerm {
  const Lattice* lattice = nullptr;
  const float* records = nullptr;                              // of the lattice
  float weight = 1;                                            // of Potts
  float *lines = nullptr, *table = nullptr, *spare = nullptr;  // tables: [vertices + 1], zero at first
};

struct TwoFastKernels {
  // z: [count], a multiple of 16. Either term may be null.
  void (*slice)(const FastTerm* spatial, const FastTerm* bilateral, int64_t first, int count, float* z);  // z += K s
  void (*splat)(const FastTerm* spatial, const FastTerm* bilateral, int64_t first, int count, const float* s);
  // For simplices of terms with lines: adds what was splatted to the spare table; puts the table's values times the
  // weight where they are sliced from and clears what was splatted.
  void (*gather)(const FastTerm& t, int64_t first, int64_t count);
  void (*fill)(const FastTerm& t, int64_t first, int64_t count);
  // For rows of the tables of terms without: multiplies the table by the weight and clears the spare one.
  void (*settle)(const FastTerm& t, int64_t first, int64_t count);
  // Records of lattice.h, [count, D + 3], to those used here, of 4 or 8 floats; may be in place where D is 5.
  void (*convert)(int dimension, const float* in, int count, float* out);
  // Weights of [count] records times root / sqrt(sum + 1e-20).
  void (*scale)(int dimension, const float* sums, float root, int count, float* records);
  void (*differences)(const float* z, int count, float* s);                // Q0 - Q1
  void (*probabilities)(const float* z, int count, float* q0, float* q1);  // Q0, Q1
};

// --- Any number of labels: rows of `width` floats, a multiple of 8

// Tables (of vertices + 1 rows) and blocks of pixels (of `block` rows) are cut in parts of 16 labels, the last one of 8
// where that is enough; see rows.inc. Of a block the first `count` rows are pixels.
struct RowKernels {
  // `count` rows of a table of `rows`, from `first` on, times compat [labels, width]. scratch: [2, width].
  void (*compatibility)(float* table, int64_t rows, int64_t first, int64_t count, int labels, int width,
                        const float* compat, float* scratch);
  // in: [labels, stride] planes; out: a block, the rest of a row `padding`; sign times the value.
  void (*interleave)(const float* in, int64_t stride, int labels, int count, float sign, float padding, int width,
                     int block, float* out);
  void (*separate)(const float* in, int width, int labels, int block, int count, int64_t stride, float* out);
};

// --- Any number of labels, pydensecrf's order of sums

// One pairwise term while mean field runs.
struct Field {
  const Lattice* lattice = nullptr;
  float weight = 0;                           // of Potts, two labels
  const float* factor = nullptr;              // of the message of each label, [width]
  float *values = nullptr, *spare = nullptr;  // vertex tables: sliced from, splatted to
};

struct ManyExactKernels {
  // rows: energy plus the messages to the pixels from `first` on; energy and rows may be the same.
  void (*slice)(const Field* fields, size_t terms, const float* energy, int width, int block, int64_t first, int count,
                float* rows);
  void (*splat)(const Field* fields, size_t terms, const float* q, int width, int block, int64_t first, int count);
  void (*softmax)(float* rows, int labels, int width, int block, int count);  // in place, block <= kRows
  // One part, of `lanes` labels (16 or 8), of tables.
  void (*blur)(const Lattice& t, int axis, int64_t first, int64_t count, int lanes, const float* table, float* spare);
};

// --- Any number of labels, sums in the fastest order

// The picture is cut in tiles, and each term takes the pixels of a tile simplex by simplex: what is sliced from and
// splatted to a simplex stays in registers, and a tile's vertices stay in the cache. Pixels lie tile by tile, `block`
// slots per tile.
struct TileTerm {
  int corners = 0;
  size_t vertices = 0;
  const float* weights = nullptr;             // [slots, corners] in the term's order, times the norm before the splat
  const float* ratios = nullptr;              // [slots] of the weights for slicing to these; null where all are 1
  const uint16_t* slots = nullptr;            // [slots] within the tile; null for the first term, whose order they have
  float *values = nullptr, *spare = nullptr;  // tables: sliced from, splatted to
};

struct Tile {              // for one term
  int64_t first;           // slot of its first pixel
  int runs;                // groups of pixels in one simplex
  const int32_t* lengths;  // [runs]
  const int32_t* corners;  // [runs, corners] table rows
};

struct ManyFastKernels {
  // rows: energy plus the message; they may be the same.
  void (*slice)(const TileTerm& t, const Tile& tile, int width, int block, const float* energy, float* rows);
  void (*splat)(const TileTerm& t, const Tile& tile, int width, int block, const float* rows);
  void (*softmax)(float* rows, int width, int block, int count);
  // One part, of `lanes` labels (16 or 8), of tables. Along the last axis also multiplies by factor [lanes].
  void (*blur)(const Lattice& t, int axis, int64_t first, int64_t count, int lanes, const float* factor,
               const float* table, float* spare);
};

struct Kernels {
  LatticeKernels lattice;
  TwoExactKernels two_exact;
  TwoFastKernels two_fast;
  RowKernels rows;
  ManyExactKernels many_exact;
  ManyFastKernels many_fast;
  bool (*within)(const float* values, size_t count, float limit);  // none is NaN or larger in size than the limit
  float (*moved)(const float* a, const float* b, int64_t count);   // the largest difference
};

LIDCAM_KERNEL_TABLE(Kernels, kernels)

}  // namespace lidcam::crf
