#include "crf/infer.h"

#include <list>
#include <mutex>
#include <stdexcept>

#include "crf/build_lattice.h"
#include "crf/kernels.h"
#include "crf/mean_field.h"

namespace lidcam::crf {
namespace {

constexpr size_t kLattices = 8, kCacheBytes = size_t(256) << 20;

struct Key {
  int height, width;
  float x, y;
  Normalization normalization;
  bool folded;
  cpu::Isa isa;  // equal bits, but a test that switches must not be served from the cache
  bool operator==(const Key& o) const {
    return height == o.height && width == o.width && x == o.x && y == o.y && normalization == o.normalization &&
           folded == o.folded && isa == o.isa;
  }
};

struct Cache {
  std::mutex mutex;
  std::list<std::pair<Key, std::shared_ptr<Lattice>>> entries;  // most recent first
  size_t bytes = 0, hits = 0, misses = 0;

  void trim() {
    while (!entries.empty() && (entries.size() > kLattices || bytes > kCacheBytes)) {
      bytes -= entries.back().second->bytes();
      entries.pop_back();
    }
  }
};

Cache& cache() {
  static Cache* instance = new Cache;  // never destroyed: threads may outlive the module's statics
  return *instance;
}

std::shared_ptr<Lattice> spatial(const Features& features, Normalization normalization, bool folded) {
  const Key key{features.height, features.width, features.deviation[0], features.deviation[1], normalization,
                folded,          cpu::isa()};
  Cache& c = cache();
  {
    std::lock_guard<std::mutex> guard(c.mutex);
    for (auto entry = c.entries.begin(); entry != c.entries.end(); ++entry)
      if (entry->first == key) {
        c.entries.splice(c.entries.begin(), c.entries, entry);
        ++c.hits;
        return entry->second;
      }
    ++c.misses;
  }
  std::shared_ptr<Lattice> lattice = make_lattice(features, normalization, false, folded);
  std::lock_guard<std::mutex> guard(c.mutex);
  for (const auto& entry : c.entries)
    if (entry.first == key) return lattice;  // another thread was faster
  c.bytes += lattice->bytes();
  c.entries.emplace_front(key, lattice);
  c.trim();
  return lattice;
}

}  // namespace

std::shared_ptr<Lattice> image_lattice(const uint8_t* image, int height, int width, const std::vector<float>& deviation,
                                       Normalization normalization, bool folded) {
  Features f;
  f.dimension = int(deviation.size());
  f.pixels = int64_t(height) * width;
  f.width = width;
  f.height = height;
  if (f.dimension != 2 && f.dimension != 5) throw std::invalid_argument("a term has 2 or 5 deviations");
  if (f.dimension == 5 && !image) throw std::invalid_argument("a bilateral term needs an image");
  for (int i = 0; i < f.dimension; ++i) {
    if (!(deviation[i] > 0)) throw std::invalid_argument("deviations must be > 0");
    f.deviation[i] = deviation[i];
  }
  if (f.dimension == 2) return spatial(f, normalization, folded);
  f.image = image;
  return make_lattice(f, normalization, false, folded);
}

int infer(const uint8_t* image, int height, int width, const float* unary, int labels,
          const std::vector<PairwiseTerm>& terms, int iterations, float tolerance, float* q, bool fast) {
  const int64_t pixels = int64_t(height) * width;
  check_energies(unary, size_t(labels) * size_t(pixels));
  for (const PairwiseTerm& term : terms) check_compat(term.compat, size_t(labels));
  // Sums in another order need one weight per term and one factor per pixel.
  bool folded = fast && labels == 2;
  for (const PairwiseTerm& term : terms)
    folded = folded && term.compat.size() == 1 &&
             (term.normalization == Normalization::symmetric || term.normalization == Normalization::none);
  std::vector<Term> built;
  for (const PairwiseTerm& term : terms)
    built.push_back({image_lattice(image, height, width, term.deviation, term.normalization, folded), term.compat});
  return mean_field(unary, labels, pixels, built, iterations, tolerance, q, fast && !folded ? width : 0);
}

void clear_spatial_cache() {
  Cache& c = cache();
  std::lock_guard<std::mutex> guard(c.mutex);
  c.entries.clear();
  c.bytes = 0;
}

CacheInfo spatial_cache_info() {
  Cache& c = cache();
  std::lock_guard<std::mutex> guard(c.mutex);
  return {c.entries.size(), c.bytes, c.hits, c.misses};
}

}  // namespace lidcam::crf
