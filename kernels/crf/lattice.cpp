#include "crf/lattice.h"

#include <cmath>
#include <stdexcept>

namespace lidcam::crf {
namespace {

struct Key {
  uint64_t a, b, c;
  bool operator==(const Key& o) const { return a == o.a && b == o.b && c == o.c; }
};

// Open addressing, powers of two, ids from `first` on in order of insertion.
class Table {
 public:
  explicit Table(int32_t first) : first_(first), slots_(1 << 12, -1) {}

  int32_t find(const Key& key) const {
    for (size_t h = hash(key) & (slots_.size() - 1);; h = (h + 1) & (slots_.size() - 1)) {
      if (slots_[h] < 0) return -1;
      if (keys_[slots_[h]] == key) return slots_[h] + first_;
    }
  }
  int32_t insert(const Key& key) {
    size_t h = hash(key) & (slots_.size() - 1);
    for (; slots_[h] >= 0; h = (h + 1) & (slots_.size() - 1))
      if (keys_[slots_[h]] == key) return slots_[h] + first_;
    slots_[h] = int32_t(keys_.size());
    keys_.push_back(key);
    const int32_t id = slots_[h];
    if (keys_.size() * 2 > slots_.size()) grow();
    return id + first_;
  }
  int32_t size() const { return int32_t(keys_.size()); }
  const Key& key(int32_t i) const { return keys_[i]; }

 private:
  static size_t hash(const Key& k) {
    uint64_t h = k.a * 0x9E3779B97F4A7C15ull ^ k.b * 0xC2B2AE3D27D4EB4Full ^ k.c * 0x165667B19E3779F9ull;
    h ^= h >> 29;
    h *= 0xBF58476D1CE4E5B9ull;
    return size_t(h ^ (h >> 32));
  }
  void grow() {
    slots_.assign(slots_.size() * 2, -1);
    for (size_t i = 0; i < keys_.size(); ++i) {
      size_t h = hash(keys_[i]) & (slots_.size() - 1);
      while (slots_[h] >= 0) h = (h + 1) & (slots_.size() - 1);
      slots_[h] = int32_t(i);
    }
  }
  int32_t first_;
  std::vector<int32_t> slots_;
  std::vector<Key> keys_;
};

constexpr int kBias = 1 << 20;  // 21 bits per coordinate, three coordinates per word

template <int D>
Key pack(const int* c) {
  Key k{0, 0, 0};
  for (int i = 0; i < D; ++i) (i < 3 ? k.a : k.b) |= uint64_t(c[i] + kBias) << (21 * (i % 3));
  return k;
}
template <int D>
void unpack(const Key& k, int* c) {
  for (int i = 0; i < D; ++i) c[i] = int(((i < 3 ? k.a : k.b) >> (21 * (i % 3))) & 0x1FFFFF) - kBias;
}

constexpr int B = 64;

struct Block {
  int rem[7][B], rank[7][B];
  float bary[8][B];
};

// Position of B points: remainder-0 corner, ranks and barycentric coordinates.
template <int D>
inline __attribute__((always_inline)) void locate_body(const float (*f)[B], const float* scale, Block& out) {
  float e[D + 1][B], rest[D + 1][B];
  int sum[B];
  for (int p = 0; p < B; ++p) {
    float sm = 0;
    for (int j = D; j > 0; --j) {
      const float cf = f[j - 1][p] * scale[j - 1];
      e[j][p] = sm - float(j) * cf;
      sm += cf;
    }
    e[0][p] = sm;
    sum[p] = 0;
  }
  for (int i = 0; i <= D; ++i)
    for (int p = 0; p < B; ++p) {
      const float v = e[i][p] * (1.0f / float(D + 1));
      // Ties to even as the reference: which vertices exist, even with weight 0, changes the blur.
      const int r = int((v + 12582912.0f) - 12582912.0f);
      out.rem[i][p] = r * (D + 1);
      sum[p] += r;
      rest[i][p] = e[i][p] - float(r * (D + 1));
      out.rank[i][p] = 0;
    }
  for (int i = 0; i < D; ++i)
    for (int j = i + 1; j <= D; ++j)
      for (int p = 0; p < B; ++p) {
        const int less = rest[i][p] < rest[j][p] ? 1 : 0;
        out.rank[i][p] += less;
        out.rank[j][p] += 1 - less;
      }
  for (int i = 0; i <= D; ++i)
    for (int p = 0; p < B; ++p) {
      const int r = out.rank[i][p] + sum[p];
      const int wrap = r < 0 ? D + 1 : (r > D ? -(D + 1) : 0);
      out.rank[i][p] = r + wrap;
      out.rem[i][p] += wrap;
      e[i][p] = (e[i][p] - float(out.rem[i][p])) * (1.0f / float(D + 1));
    }
  for (int k = 0; k <= D + 1; ++k)
    for (int p = 0; p < B; ++p) out.bary[k][p] = 0;
  // The coordinate of rank r adds to corner D - r and takes from corner D - r + 1.
  for (int i = 0; i <= D; ++i)
    for (int k = 0; k <= D; ++k)
      for (int p = 0; p < B; ++p) {
        const float v = out.rank[i][p] == D - k ? e[i][p] : 0.0f;
        out.bary[k][p] += v;
        out.bary[k + 1][p] -= v;
      }
  for (int p = 0; p < B; ++p) out.bary[0][p] += 1.0f + out.bary[D + 1][p];
}

#define LIDCAM_LOCATE(D) \
  LIDCAM_CLONES void locate##D(const float (*f)[B], const float* s, Block& o) { locate_body<D>(f, s, o); }
LIDCAM_LOCATE(1)
LIDCAM_LOCATE(2)
LIDCAM_LOCATE(3)
LIDCAM_LOCATE(4)
LIDCAM_LOCATE(5)
LIDCAM_LOCATE(6)

template <int D>
void locate(const float (*f)[B], const float* s, Block& o) {
  if constexpr (D == 1) locate1(f, s, o);
  if constexpr (D == 2) locate2(f, s, o);
  if constexpr (D == 3) locate3(f, s, o);
  if constexpr (D == 4) locate4(f, s, o);
  if constexpr (D == 5) locate5(f, s, o);
  if constexpr (D == 6) locate6(f, s, o);
}

template <int D>
Key simplex_key(const Block& block, int p) {
  int c[D];
  for (int i = 0; i < D; ++i) c[i] = block.rem[i][p];
  Key key = pack<D>(c);
  for (int i = 0; i <= D; ++i) key.c |= uint64_t(block.rank[i][p]) << (3 * i);
  return key;
}

template <int D>
void build(Lattice& lattice, const float* features) {
  const int64_t n = lattice.pixels;
  float scale[D];
  for (int i = 0; i < D; ++i) scale[i] = float(1.0 / std::sqrt((i + 2.0) * (i + 1.0)) * float(std::sqrt(2.0 / 3.0) * (D + 1)));
  Table simplices(0);
  std::vector<int32_t> of(n);
  std::vector<float> bary(size_t(D + 1) * n);
  float f[D][B];
  Block block;
  Key last{0, 0, 0};
  int32_t last_id = -1;
  for (int64_t base = 0; base < n; base += B) {
    const int count = int(n - base < B ? n - base : B);
    for (int p = 0; p < B; ++p)
      for (int i = 0; i < D; ++i) {
        const float v = features[(base + (p < count ? p : 0)) * D + i];
        if (!(std::fabs(v) < 30000.0f))
          throw std::invalid_argument("a pairwise feature is not finite, or too large for the lattice (30000 deviations)");
        f[i][p] = v;
      }
    locate<D>(f, scale, block);
    for (int p = 0; p < count; ++p) {
      const Key key = simplex_key<D>(block, p);
      if (last_id < 0 || !(key == last)) {
        last = key;
        last_id = simplices.insert(key);
      }
      of[base + p] = last_id;
    }
    for (int k = 0; k <= D; ++k)
      for (int p = 0; p < count; ++p) bary[size_t(k) * n + base + p] = block.bary[k][p];
  }
  if (n % 4 != 0) {
    // pydensecrf pads the last group of four pixels with zero features, and so creates their vertices:
    // they carry no weight and still take part in the blur.
    for (int i = 0; i < D; ++i)
      for (int p = 0; p < B; ++p) f[i][p] = 0;
    locate<D>(f, scale, block);
    simplices.insert(simplex_key<D>(block, 0));
  }
  const int32_t s = lattice.simplices = simplices.size();
  lattice.start.assign(size_t(s) + 1, 0);
  for (int64_t p = 0; p < n; ++p) ++lattice.start[of[p] + 1];
  for (int32_t i = 0; i < s; ++i) lattice.start[i + 1] += lattice.start[i];
  lattice.order.resize(n);
  lattice.simplex.resize(n);
  {
    std::vector<int32_t> next(lattice.start.begin(), lattice.start.end() - 1);
    for (int64_t p = 0; p < n; ++p) {
      const int32_t to = next[of[p]]++;
      lattice.order[to] = int32_t(p);
      lattice.simplex[to] = of[p];
    }
  }
  lattice.weight.resize(size_t(D + 1) * n);
  for (int k = 0; k <= D; ++k)
    for (int64_t g = 0; g < n; ++g) lattice.weight[size_t(k) * n + g] = bary[size_t(k) * n + lattice.order[g]];

  Table vertices(1);
  lattice.corner.resize(size_t(D + 1) * s);
  for (int32_t i = 0; i < s; ++i) {
    int c[D], v[D];
    const Key& key = simplices.key(i);
    unpack<D>(key, c);
    for (int k = 0; k <= D; ++k) {
      for (int j = 0; j < D; ++j) v[j] = c[j] + (int((key.c >> (3 * j)) & 7) <= D - k ? k : k - (D + 1));
      lattice.corner[size_t(k) * s + i] = vertices.insert(pack<D>(v));
    }
  }
  const int32_t m = lattice.vertices = vertices.size();
  lattice.neighbor.resize(size_t(D + 1) * m * 2);
  for (int32_t i = 0; i < m; ++i) {
    int c[D], v[D];
    unpack<D>(vertices.key(i), c);
    for (int j = 0; j <= D; ++j)
      for (int side = 0; side < 2; ++side) {
        const int sign = side ? 1 : -1;
        for (int k = 0; k < D; ++k) v[k] = c[k] + sign;
        if (j < D) v[j] = c[j] - sign * D;
        const int32_t found = vertices.find(pack<D>(v));
        lattice.neighbor[(size_t(j) * m + i) * 2 + side] = found < 0 ? 0 : found;
      }
  }
}

template <int K>
inline __attribute__((always_inline)) void slice_one(const Lattice& t, const float* val, float* out) {
  const int64_t n = t.pixels;
  const int32_t* sim = t.simplex.data();
  const float* w = t.weight.data();
  const int32_t* corner = t.corner.data();
  const int32_t s = t.simplices;
  float block[512];
  for (int64_t base = 0; base < n; base += 512) {
    const int count = int(n - base < 512 ? n - base : 512);
    for (int p = 0; p < count; ++p) {
      float sum = 0;
      for (int k = 0; k < K; ++k) sum += w[int64_t(k) * n + base + p] * val[corner[k * s + sim[base + p]]];
      block[p] = sum;
    }
    for (int p = 0; p < count; ++p) out[t.order[base + p]] = t.post.empty() ? block[p] : block[p] * t.post[base + p];
  }
}
LIDCAM_CLONES void slice3(const Lattice& t, const float* v, float* o) { slice_one<3>(t, v, o); }
LIDCAM_CLONES void slice6(const Lattice& t, const float* v, float* o) { slice_one<6>(t, v, o); }

template <int K>
void splat_one(const Lattice& t, const float* in, float* val) {
  const int64_t n = t.pixels;
  const float* w = t.weight.data();
  for (int32_t i = 0; i < t.simplices; ++i) {
    float acc[K] = {};
    for (int32_t g = t.start[i]; g < t.start[i + 1]; ++g) {
      float x = in[t.order[g]];
      if (!t.pre.empty()) x *= t.pre[g];
      for (int k = 0; k < K; ++k) acc[k] += w[k * n + g] * x;
    }
    for (int k = 0; k < K; ++k) val[t.corner[size_t(k) * t.simplices + i]] += acc[k];
  }
}

LIDCAM_CLONES void blur(const Lattice& t, int L, float*& val, float*& spare) {
  const int32_t m = t.vertices;
  for (int j = 0; j <= t.dimension; ++j) {
    const int32_t* nb = t.neighbor.data() + size_t(j) * m * 2;
    for (int l = 0; l < L; ++l) spare[l] = 0;
    if (L == 1) {
      for (int32_t i = 0; i < m; ++i) spare[i + 1] = val[i + 1] + 0.5f * (val[nb[2 * i]] + val[nb[2 * i + 1]]);
    } else {
      for (int32_t i = 0; i < m; ++i) {
        const float* a = val + size_t(nb[2 * i]) * L;
        const float* b = val + size_t(nb[2 * i + 1]) * L;
        const float* c = val + size_t(i + 1) * L;
        float* __restrict d = spare + size_t(i + 1) * L;
        for (int l = 0; l < L; ++l) d[l] = c[l] + 0.5f * (a[l] + b[l]);
      }
    }
    float* swap = val;
    val = spare;
    spare = swap;
  }
}

LIDCAM_CLONES void splat_many(const Lattice& t, const float* in, int L, float* val) {
  const int64_t n = t.pixels;
  for (int64_t g = 0; g < n; ++g) {
    const float* x = in + size_t(t.order[g]) * L;
    const float scale = t.pre.empty() ? 1.0f : t.pre[g];
    for (int k = 0; k <= t.dimension; ++k) {
      const float w = t.weight[size_t(k) * n + g] * scale;
      float* __restrict v = val + size_t(t.corner[size_t(k) * t.simplices + t.simplex[g]]) * L;
      for (int b = 0; b < L; b += 8)
        for (int l = b; l < b + 8; ++l) v[l] += w * x[l];
    }
  }
}

LIDCAM_CLONES void slice_many(const Lattice& t, const float* val, int L, float* out) {
  const int64_t n = t.pixels;
  for (int64_t g = 0; g < n; ++g) {
    float* __restrict y = out + size_t(t.order[g]) * L;
    const float scale = t.post.empty() ? 1.0f : t.post[g];
    for (int l = 0; l < L; ++l) y[l] = 0;
    for (int k = 0; k <= t.dimension; ++k) {
      const float w = t.weight[size_t(k) * n + g] * scale;
      const float* v = val + size_t(t.corner[size_t(k) * t.simplices + t.simplex[g]]) * L;
      for (int b = 0; b < L; b += 8)
        for (int l = b; l < b + 8; ++l) y[l] += w * v[l];
    }
  }
}

// One channel, any dimension.
void splat_any(const Lattice& t, const float* in, float* val) {
  for (int64_t g = 0; g < t.pixels; ++g)
    for (int k = 0; k <= t.dimension; ++k)
      val[t.corner[size_t(k) * t.simplices + t.simplex[g]]] +=
          t.weight[size_t(k) * t.pixels + g] * in[t.order[g]] * (t.pre.empty() ? 1.0f : t.pre[g]);
}

void slice_any(const Lattice& t, const float* val, float* out) {
  for (int64_t g = 0; g < t.pixels; ++g) {
    float sum = 0;
    for (int k = 0; k <= t.dimension; ++k)
      sum += t.weight[size_t(k) * t.pixels + g] * val[t.corner[size_t(k) * t.simplices + t.simplex[g]]];
    out[t.order[g]] = t.post.empty() ? sum : sum * t.post[g];
  }
}

}  // namespace

// One channel, or a multiple of 8.
void Lattice::filter(const float* in, float* out, int channels, float* values, float* spare) const {
  const size_t size = (size_t(vertices) + 1) * channels;
  for (size_t i = 0; i < size; ++i) values[i] = 0;
  if (channels == 1 && dimension == 2)
    splat_one<3>(*this, in, values);
  else if (channels == 1 && dimension == 5)
    splat_one<6>(*this, in, values);
  else if (channels == 1)
    splat_any(*this, in, values);
  else
    splat_many(*this, in, channels, values);
  blur(*this, channels, values, spare);
  if (channels == 1 && dimension == 2)
    slice3(*this, values, out);
  else if (channels == 1 && dimension == 5)
    slice6(*this, values, out);
  else if (channels == 1)
    slice_any(*this, values, out);
  else
    slice_many(*this, values, channels, out);
}

std::shared_ptr<Lattice> make_lattice(const float* features, int64_t pixels, int dimension, Normalization normalization) {
  auto lattice = std::make_shared<Lattice>();
  Lattice& t = *lattice;
  t.dimension = dimension;
  t.pixels = pixels;
  switch (dimension) {
    case 1: build<1>(t, features); break;
    case 2: build<2>(t, features); break;
    case 3: build<3>(t, features); break;
    case 4: build<4>(t, features); break;
    case 5: build<5>(t, features); break;
    case 6: build<6>(t, features); break;
    default: throw std::invalid_argument("a pairwise term has 1 to 6 features per pixel");
  }
  const float alpha = 1.0f / (1.0f + std::pow(2.0f, -float(dimension)));
  // alpha of the blur, symmetric halves on splat and slice.
  const float half = std::sqrt(alpha);
  for (float& w : t.weight) w *= half;
  if (normalization == Normalization::none) return lattice;
  std::vector<float> ones(pixels, 1.0f), k1(pixels), values(size_t(t.vertices) + 1), spare(size_t(t.vertices) + 1);
  t.filter(ones.data(), k1.data(), 1, values.data(), spare.data());
  std::vector<float> norm(pixels);
  for (int64_t g = 0; g < pixels; ++g) {
    const float k = k1[t.order[g]] + 1e-20f;
    norm[g] = normalization == Normalization::symmetric ? 1.0f / std::sqrt(k) : 1.0f / k;
  }
  if (normalization == Normalization::symmetric)
    for (int k = 0; k <= dimension; ++k)
      for (int64_t g = 0; g < pixels; ++g) t.weight[size_t(k) * pixels + g] *= norm[g];
  else
    (normalization == Normalization::before ? t.pre : t.post) = norm;
  return lattice;
}

}  // namespace lidcam::crf
