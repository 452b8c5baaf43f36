#include "crf/build_lattice.h"

#include <cmath>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "cpu/float_mode.h"
#include "crf/fold.h"
#include "crf/grid.h"
#include "crf/kernels.h"
#include "crf/keys.h"
#include "crf/sweep.h"
#include "crf/table.h"

namespace lidcam::crf {
namespace {

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
    largest_[0] = across_.back();
    largest_[1] = checked(float(f.height - 1) / f.deviation[1]) * scale_[1];
    for (int channel = 0; channel < 3 && f.image; ++channel)
      for (int v = 0; v < 256; ++v)
        colours_[channel][v] = checked(float(v) / f.deviation[2 + channel]) * scale_[2 + channel];
  }

  // The largest x and y of a picture, as written.
  float largest(int axis) const { return largest_[axis]; }
  void fill(int64_t first, int count, float (*out)[kBlock]) const {
    if (f_.rows) {
      for (int p = 0; p < count; ++p)
        for (int i = 0; i < f_.dimension; ++i) out[i][p] = checked(f_.rows[(first + p) * f_.dimension + i]) * scale_[i];
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
  float scale_[kMaxDimension], largest_[2] = {0, 0};
  std::vector<float> across_;
  float colours_[3][256];
};

// The simplices of all pixels. False where a coordinate does not fit the keys.
template <typename Codec, typename Ids>
bool find_simplices(Lattice& t, const Points& points, Ids& simplices) {
  using Key = typename Codec::Key;
  const LatticeKernels& run = kernels().lattice;
  const int d = t.dimension, stride = t.stride;
  const int64_t n = t.pixels;
  constexpr bool narrow = std::is_same_v<Key, uint64_t>;
  float block[kMaxDimension][kBlock];
  Located at;
  for (int64_t first = 0; first < n; first += kBlock) {
    if (first % kChunk == 0) cpu::check_stop();
    const int count = int(n - first < kBlock ? n - first : kBlock);
    points.fill(first, count, block);
    float* record = t.record.data() + first * stride;
    run.locate(d, block, at, record);
    if (narrow && !at.narrow) return false;
    alignas(64) Key keys[kBlock];
    for (int p = 0; p < kBlock; ++p) keys[p] = Codec::simplex(at, p);
    simplices.insert(keys, count, reinterpret_cast<int32_t*>(record) + stride - 1, stride);
  }
  // What lies past the end is read together with the last pixels but never used: it must still name a simplex.
  std::memset(t.record.data() + n * stride, 0, size_t(kBlock) * stride * 4);
  if (n % 4 != 0) {
    // pydensecrf fills its last group of four pixels with features 0 and so creates their vertices: they carry
    // nothing and still take part in the blur.
    float ignored[kBlock * (kMaxDimension + 3) + 4];
    std::memset(block, 0, sizeof block);
    run.locate(d, block, at, ignored);
    alignas(64) Key keys[kBlock];
    for (int p = 0; p < kBlock; ++p) keys[p] = Codec::simplex(at, p);
    int32_t id;
    simplices.insert(keys, 1, &id, 1);
  }
  return true;
}

// Ids: Table or Grid, of which `vertices` has one for each remainder: the neighbours of all vertices of one remainder
// have the same other remainder.
template <typename Codec, int D, typename Ids>
void connect(Lattice& t, const Ids& simplices, std::vector<Ids>& vertices) {
  using Key = typename Codec::Key;
  const int32_t s = t.simplices = simplices.size();
  t.corner.allocate(size_t(s) * (D + 1));
  for (int32_t i = 0; i < s; i += kBlock) {
    if (i % kChunk == 0) cpu::check_stop();
    alignas(64) Key keys[D + 1][kBlock];
    const int32_t count = s - i < kBlock ? s - i : kBlock;
    Codec::corners(simplices.keys() + i, keys);
    for (int k = 0; k <= D; ++k) vertices[k].insert(keys[k], count, t.corner.data() + size_t(i) * (D + 1) + k, D + 1);
  }
  int64_t first[D + 2] = {0};
  for (int k = 0; k <= D; ++k) first[k + 1] = first[k] + vertices[k].size();
  if (first[D + 1] > int64_t(1) << 30) throw std::invalid_argument("the lattice has too many vertices");
  int32_t* corner = t.corner.data();
  for (int32_t i = 0; i < s; ++i)
    for (int k = 0; k <= D; ++k) *corner++ += int32_t(first[k]) + 1;

  const size_t m = size_t(t.vertices = int32_t(first[D + 1]));
  t.neighbor.allocate(size_t(D + 1) * 2 * m);
  for (int j = 0; j <= D; ++j) std::memset(t.neighbor.data() + (2 * j + 1) * m, 0, m * 4);
  int32_t last[D + 1];
  for (int k = 0; k <= D; ++k) {
    const int next = k == D ? 0 : k + 1;
    Ids &from = vertices[k], &to = vertices[next];
    const int32_t base = int32_t(first[k]) + 1, other = int32_t(first[next]);
    for (int j = 0; j <= D; ++j) {
      int32_t *up = t.neighbor.data() + 2 * m * j, *down = up + m;
      for (int32_t i = 0; i < from.size(); i += kBlock) {
        if (i % kChunk == 0) cpu::check_stop();
        const int32_t count = from.size() - i < kBlock ? from.size() - i : kBlock;
        alignas(64) Key wanted[kBlock];
        alignas(64) int32_t ids[kBlock];
        for (int b = 0; b < kBlock; ++b) wanted[b] = Codec::up(from.keys()[i + b], k, j);
        to.find(wanted, count, ids);
        for (int b = 0; b < count; ++b) ids[b] = ids[b] > 0 ? ids[b] + other : 0;
        std::memcpy(up + base - 1 + i, ids, size_t(count) * 4);
        for (int b = 0; b < count; ++b) down[ids[b] - 1] = base + i + b;  // of 0: up[m - 1], which is corrected below
        last[j] = ids[count - 1];
      }
    }
  }
  for (int j = 0; j <= D; ++j) t.neighbor[2 * m * j + m - 1] = last[j];
}

template <typename Codec, int D>
bool build(Lattice& t, const Features& features) {
  // A block past the end, as kernels write whole blocks.
  t.record.allocate(size_t(t.pixels + kBlock) * t.stride);
  const Points points(features);
  if constexpr (std::is_same_v<Codec, Grid::Codec>) {
    const Grid::Bounds bounds(points.largest(0), points.largest(1));
    if (!features.rows && bounds.cells() <= t.pixels + 4096) {
      Grid simplices(bounds, true, size_t(t.pixels) + 1);
      if (!find_simplices<Codec>(t, points, simplices)) return false;
      if (!simplices.outside()) {
        std::vector<Grid> vertices;
        for (int k = 0; k <= D; ++k) vertices.emplace_back(bounds, false, size_t(simplices.size()));
        connect<Codec, D>(t, simplices, vertices);
        return true;
      }
    }
  }
  Table<Codec> simplices(size_t(t.pixels) / 4);
  if (!find_simplices<Codec>(t, points, simplices)) return false;
  std::vector<Table<Codec>> vertices;
  for (int k = 0; k <= D; ++k) vertices.emplace_back(size_t(simplices.size()) / (D < 3 ? 4 : 12));
  connect<Codec, D>(t, simplices, vertices);
  return true;
}

template <template <int> typename Codec>
bool build_any(Lattice& t, const Features& features) {
  switch (t.dimension) {
    case 1: return build<Codec<1>, 1>(t, features);
    case 2: return build<Codec<2>, 2>(t, features);
    case 3: return build<Codec<3>, 3>(t, features);
    case 4: return build<Codec<4>, 4>(t, features);
    case 5: return build<Codec<5>, 5>(t, features);
    case 6: return build<Codec<6>, 6>(t, features);
    default: return build<Codec<7>, 7>(t, features);
  }
}

void normalise(Lattice& t, Normalization kind) {
  t.before = kind == Normalization::symmetric || kind == Normalization::before;
  t.after = kind == Normalization::symmetric || kind == Normalization::after;
  if (kind == Normalization::none) return;
  const LatticeKernels& run = kernels().lattice;
  Buffer<float> table(size_t(t.vertices) + 1), spare(size_t(t.vertices) + 1);
  table.fill(0);
  in_chunks(t.pixels, [&](int64_t first, int64_t count) { run.splat_ones(t, first, count, table.data()); });
  const float* blurred = blur_axes(t, table.data(), spare.data(),
                                   [&](int axis, int64_t first, int64_t count, const float* from, float* to) {
                                     run.blur(t, axis, first, count, from, to);
                                   });
  Buffer<float> pairs((size_t(t.vertices) + 1) * 2), rows(size_t(t.simplices) * (t.dimension < 4 ? 8 : 16));
  for (size_t i = 0; i <= size_t(t.vertices); ++i) pairs[2 * i] = pairs[2 * i + 1] = blurred[i];
  in_chunks(t.simplices,
            [&](int64_t first, int64_t count) { run.expand_pairs(t, first, count, pairs.data(), rows.data()); });
  in_chunks(t.pixels, [&](int64_t first, int64_t count) {
    run.norms(t, rows.data(), kind == Normalization::symmetric, first, count, t.record.data());
  });
}

}  // namespace

std::shared_ptr<Lattice> make_lattice(const Features& features, Normalization normalization, bool wide, bool folded) {
  if (features.dimension < 1 || features.dimension > kMaxDimension)
    throw std::invalid_argument("a pairwise term has 1 to 7 features per pixel");
  if (features.pixels < 1 || features.pixels > (int64_t(1) << 30))
    throw std::invalid_argument("a lattice has 1 to 2^30 pixels");
  const cpu::FloatMode mode(cpu::Subnormals::flush);
  auto lattice = std::make_shared<Lattice>();
  Lattice& t = *lattice;
  t.dimension = features.dimension;
  t.corners = features.dimension + 1;
  t.stride = t.corners + 2;
  t.pixels = features.pixels;
  t.alpha = 1.0f / (1.0f + std::pow(2.0f, -float(t.dimension)));
  t.wide = wide;
  if (wide || !build_any<Narrow>(t, features)) {
    t.wide = true;
    build_any<Wide>(t, features);
  }
  if (folded)
    fold_lattice(t, normalization == Normalization::symmetric);
  else
    normalise(t, normalization);
  return lattice;
}

}  // namespace lidcam::crf
