#include "crf/lattice.h"

#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "crf/fast.h"
#include "crf/kernels.h"

namespace lidcam::crf {
namespace {

int bits_of(int dimension) { return (64 - 3 * dimension) / dimension < 20 ? (64 - 3 * dimension) / dimension : 20; }

// A simplex is its remainder-0 corner (a coordinate is (D + 1) * base) and the order of its coordinates; a vertex is
// its remainder k and base, a coordinate being (D + 1) * base + k. The neighbour of a vertex in direction j adds 1 to
// every coordinate and takes D + 1 from coordinate j: k grows by one and base[j] falls by one. (Coordinate D is
// implied.) Corner k + 1 of a simplex is the neighbour of corner k in the direction whose rank is D - k.

// All of it in one word.
struct Narrow {
  using Key = uint64_t;
  int dimension, bits;
  uint64_t ones = 0;  // 1 in the field of every coordinate
  explicit Narrow(int d) : dimension(d), bits(bits_of(d)) {
    for (int j = 0; j < d; ++j) ones |= uint64_t(1) << (bits * j);
  }
  Key simplex(const Located& at, int p) const { return at.key[p]; }
  int rank(Key key, int j) const { return int(key >> (bits * dimension + 3 * j)) & 7; }
  Key origin(Key simplex) const { return simplex & ((uint64_t(1) << (bits * dimension)) - 1); }
  Key up(Key vertex, int direction) const {
    if (direction < dimension) vertex -= uint64_t(1) << (bits * direction);
    const int k = int(vertex >> (bits * dimension));
    return k == dimension ? (vertex & ((uint64_t(1) << (bits * dimension)) - 1)) + ones
                          : vertex + (uint64_t(1) << (bits * dimension));
  }
  static uint64_t hash(Key key) {
    key ^= key >> 31;
    key *= 0x9E3779B97F4A7C15ull;
    return key ^ (key >> 29);
  }
};

// For very small deviations on large images: 32 bits per coordinate.
struct WideKey {
  int32_t base[kMaxDimension];
  uint32_t rest;  // ranks of 3 bits, or the remainder
  bool operator==(const WideKey& o) const {
    bool same = rest == o.rest;
    for (int j = 0; j < kMaxDimension; ++j) same = same && base[j] == o.base[j];
    return same;
  }
};

struct Wide {
  using Key = WideKey;
  int dimension;
  explicit Wide(int d) : dimension(d) {}
  Key simplex(const Located& at, int p) const {
    Key key{};
    for (int j = 0; j < dimension; ++j) {
      key.base[j] = at.base[j][p];
      key.rest |= uint32_t(at.rank[j][p]) << (3 * j);
    }
    return key;
  }
  int rank(const Key& key, int j) const { return int(key.rest >> (3 * j)) & 7; }
  Key origin(Key simplex) const {
    simplex.rest = 0;
    return simplex;
  }
  Key up(Key vertex, int direction) const {
    if (direction < dimension) --vertex.base[direction];
    if (int(vertex.rest) == dimension) {
      vertex.rest = 0;
      for (int j = 0; j < dimension; ++j) ++vertex.base[j];
    } else {
      ++vertex.rest;
    }
    return vertex;
  }
  static uint64_t hash(const Key& key) {
    uint64_t h = key.rest;
    for (int j = 0; j < kMaxDimension; ++j) {
      h = (h ^ uint32_t(key.base[j])) * 0x9E3779B97F4A7C15ull;
      h ^= h >> 32;
    }
    return h;
  }
};

// Open addressing; ids from 0 on in order of insertion.
template <typename Codec>
class Table {
 public:
  using Key = typename Codec::Key;
  explicit Table(size_t expected) {
    size_t capacity = 256;
    while (capacity < expected) capacity *= 2;
    reset(capacity);
    keys_.allocate(capacity / 2);
  }
  int32_t insert(const Key& key) {
    size_t h = Codec::hash(key) & mask_;
    for (; slots_[h].id >= 0; h = (h + 1) & mask_)
      if (slots_[h].key == key) return slots_[h].id;
    if (size_t(size_) == keys_.size()) {
      grow();
      for (h = Codec::hash(key) & mask_; slots_[h].id >= 0;) h = (h + 1) & mask_;
    }
    slots_[h] = {key, size_};
    keys_[size_] = key;
    return size_++;
  }
  int32_t find(const Key& key) const {
    for (size_t h = Codec::hash(key) & mask_; slots_[h].id >= 0; h = (h + 1) & mask_)
      if (slots_[h].key == key) return slots_[h].id;
    return -1;
  }
  void prefetch(const Key& key) const { __builtin_prefetch(&slots_[Codec::hash(key) & mask_]); }
  int32_t size() const { return size_; }
  const Key& key(int32_t id) const { return keys_[id]; }

 private:
  struct Slot {
    Key key;
    int32_t id;
  };
  void reset(size_t capacity) {
    slots_.allocate(capacity);
    std::memset(static_cast<void*>(slots_.data()), 0xFF, capacity * sizeof(Slot));  // every id is -1
    mask_ = capacity - 1;
  }
  void grow() {
    if (size_ > (1 << 30) - 1) throw std::invalid_argument("the lattice has too many vertices");
    Buffer<Key> keys(keys_.size() * 2);
    for (int32_t i = 0; i < size_; ++i) keys[i] = keys_[i];
    keys_ = std::move(keys);
    reset((mask_ + 1) * 2);
    for (int32_t i = 0; i < size_; ++i) {
      size_t h = Codec::hash(keys_[i]) & mask_;
      while (slots_[h].id >= 0) h = (h + 1) & mask_;
      slots_[h] = {keys_[i], i};
    }
  }
  Buffer<Slot> slots_;
  Buffer<Key> keys_;
  size_t mask_ = 0;
  int32_t size_ = 0;
};

// Writes blocks of features times the lattice's scale (Adams et al. 2010, section 3.1: the blur then has standard
// deviation one).
class Points {
 public:
  explicit Points(const Features& f) : f_(f) {
    const float deviation = float(std::sqrt(2.0 / 3.0) * (f.dimension + 1));
    for (int i = 0; i < f.dimension; ++i) scale_[i] = float(1.0 / std::sqrt((i + 2.0) * (i + 1.0)) * deviation);
    if (f.rows) return;
    across_.resize(f.width);
    for (int x = 0; x < f.width; ++x) across_[x] = checked(float(x) / f.deviation[0]) * scale_[0];
    checked(float(f.height - 1) / f.deviation[1]);
    for (int channel = 0; channel < 3 && f.image; ++channel)
      for (int v = 0; v < 256; ++v)
        colours_[channel][v] = checked(float(v) / f.deviation[2 + channel]) * scale_[2 + channel];
  }

  void fill(int64_t first, int count, float (*out)[kBlock]) const {
    if (f_.rows) {
      for (int p = 0; p < count; ++p)
        for (int i = 0; i < f_.dimension; ++i)
          out[i][p] = checked(f_.rows[(first + p) * f_.dimension + i]) * scale_[i];
    } else {
      int64_t y = first / f_.width;
      int x = int(first % f_.width);
      for (int p = 0; p < count;) {
        const float down = float(y) / f_.deviation[1] * scale_[1];
        const int run = count - p < f_.width - x ? count - p : f_.width - x;
        for (int i = 0; i < run; ++i) out[0][p + i] = across_[x + i];
        for (int i = 0; i < run; ++i) out[1][p + i] = down;
        p += run;
        x = 0;
        ++y;
      }
      if (f_.image) {
        const uint8_t* rgb = f_.image + 3 * first;
        for (int p = 0; p < count; ++p, rgb += 3)
          for (int c = 0; c < 3; ++c) out[2 + c][p] = colours_[c][rgb[c]];
      }
    }
    for (int i = 0; i < f_.dimension; ++i)
      for (int p = count; p < kBlock; ++p) out[i][p] = 0;
  }

 private:
  static float checked(float feature) {
    if (!(std::fabs(feature) < 500000.0f))
      throw std::invalid_argument("a pairwise feature is not finite, or larger than 500000 standard deviations");
    return feature;
  }
  const Features& f_;
  float scale_[kMaxDimension];
  std::vector<float> across_;
  float colours_[3][256];
};

// False where a coordinate does not fit the keys.
template <typename Codec>
bool build(Lattice& t, const Features& features) {
  const Kernels& run = kernels();
  const Codec codec(t.dimension);
  const int d = t.dimension, stride = t.stride;
  const int64_t n = t.pixels;
  const Points points(features);
  constexpr bool narrow = std::is_same_v<Codec, Narrow>;
  // A block past the end, as kernels write whole blocks.
  t.record.allocate(size_t(n + kBlock) * stride);
  Table<Codec> simplices(size_t(n) / 2 + 1);
  float block[kMaxDimension][kBlock];
  Located at;
  typename Codec::Key last{};
  int32_t last_id = -1;
  for (int64_t first = 0; first < n; first += kBlock) {
    const int count = int(n - first < kBlock ? n - first : kBlock);
    points.fill(first, count, block);
    float* record = t.record.data() + first * stride;
    run.locate(d, block, at, record);
    if (narrow && !at.narrow) return false;
    typename Codec::Key keys[kBlock];
    for (int p = 0; p < count; ++p) simplices.prefetch(keys[p] = codec.simplex(at, p));
    for (int p = 0; p < count; ++p) {
      const typename Codec::Key& key = keys[p];
      if (last_id < 0 || !(key == last)) {
        last = key;
        last_id = simplices.insert(key);
      }
      std::memcpy(record + p * stride + stride - 1, &last_id, 4);
    }
  }
  // What lies past the end is read together with the last pixels, never used: it must name a simplex.
  for (int64_t p = n; p < n + kBlock; ++p) std::memset(t.record.data() + p * stride, 0, size_t(stride) * 4);
  if (n % 4 != 0) {
    // pydensecrf fills its last group of four pixels with features 0 and so creates their vertices: they carry
    // nothing and still take part in the blur.
    float ignored[kBlock * (kMaxDimension + 3)];
    for (int i = 0; i < d; ++i)
      for (int p = 0; p < kBlock; ++p) block[i][p] = 0;
    run.locate(d, block, at, ignored);
    simplices.insert(codec.simplex(at, 0));
  }
  const int32_t s = t.simplices = simplices.size();

  Table<Codec> vertices(size_t(s) * 2 + 1);
  t.corner.allocate(size_t(s) * t.corners);
  // Tables are larger than the caches: keys are made some steps before they are looked up.
  constexpr int32_t kBatch = 8;
  for (int32_t i = 0; i < s; i += kBatch) {
    typename Codec::Key keys[kBatch][kMaxDimension + 1];
    const int32_t count = s - i < kBatch ? s - i : kBatch;
    for (int32_t b = 0; b < count; ++b) {
      const auto& simplex = simplices.key(i + b);
      int with_rank[8];  // direction of each rank; the implied coordinate has the one left over
      for (int r = 0; r <= d; ++r) with_rank[r] = d;
      for (int j = 0; j < d; ++j) with_rank[codec.rank(simplex, j)] = j;
      keys[b][0] = codec.origin(simplex);
      for (int k = 0; k < d; ++k) keys[b][k + 1] = codec.up(keys[b][k], with_rank[d - k]);
      for (int k = 0; k <= d; ++k) vertices.prefetch(keys[b][k]);
    }
    int32_t* corner = t.corner.data() + size_t(i) * t.corners;
    for (int32_t b = 0; b < count; ++b)
      for (int k = 0; k <= d; ++k) *corner++ = vertices.insert(keys[b][k]) + 1;
  }
  const size_t m = size_t(t.vertices = vertices.size());
  t.neighbor.allocate(size_t(d + 1) * 2 * m);
  t.neighbor.fill(0);
  for (int j = 0; j <= d; ++j) {
    int32_t *up = t.neighbor.data() + 2 * m * j, *down = up + m;
    for (size_t i = 0; i < m; ++i) {
      if (i + 2 * kBatch < m) vertices.prefetch(codec.up(vertices.key(int32_t(i) + 2 * kBatch), j));
      const int32_t found = vertices.find(codec.up(vertices.key(int32_t(i)), j));
      if (found < 0) continue;
      up[i] = found + 1;
      down[found] = int32_t(i) + 1;
    }
  }
  return true;
}

void normalise(Lattice& t, Normalization kind) {
  t.before = kind == Normalization::symmetric || kind == Normalization::before;
  t.after = kind == Normalization::symmetric || kind == Normalization::after;
  if (kind == Normalization::none) return;
  const Kernels& run = kernels();
  Buffer<float> table(size_t(t.vertices) + 1), spare(size_t(t.vertices) + 1);
  table.fill(0);
  run.splat_ones(t, table.data());
  const float* blurred = run.blur(t, table.data(), spare.data());
  Buffer<float> pairs((size_t(t.vertices) + 1) * 2), rows(size_t(t.simplices) * (t.dimension < 4 ? 8 : 16));
  for (size_t i = 0; i <= size_t(t.vertices); ++i) pairs[2 * i] = pairs[2 * i + 1] = blurred[i];
  run.expand_pairs(t, pairs.data(), rows.data());
  run.norms(t, rows.data(), kind == Normalization::symmetric, t.record.data());
}

}  // namespace

size_t Lattice::bytes() const {
  return record.bytes() + corner.bytes() + neighbor.bytes();
}

std::shared_ptr<Lattice> make_lattice(const Features& features, Normalization normalization, bool wide,
                                      bool folded) {
  if (features.dimension < 1 || features.dimension > kMaxDimension)
    throw std::invalid_argument("a pairwise term has 1 to 7 features per pixel");
  if (features.pixels < 1 || features.pixels > (int64_t(1) << 30))
    throw std::invalid_argument("a lattice has 1 to 2^30 pixels");
  auto lattice = std::make_shared<Lattice>();
  Lattice& t = *lattice;
  t.dimension = features.dimension;
  t.corners = features.dimension + 1;
  t.stride = t.corners + 2;
  t.pixels = features.pixels;
  t.alpha = 1.0f / (1.0f + std::pow(2.0f, -float(t.dimension)));
  t.wide = wide;
  if (wide || !build<Narrow>(t, features)) {
    t.wide = true;
    build<Wide>(t, features);
  }
  if (folded)
    fold_lattice(t, normalization == Normalization::symmetric);
  else
    normalise(t, normalization);
  return lattice;
}

}  // namespace lidcam::crf
