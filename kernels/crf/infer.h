// A dense CRF over one image: lattices from the image, spatial ones from a cache, then mean field.
#pragma once
#include <memory>
#include <vector>

#include "crf/lattice.h"

namespace lidcam::crf {

struct PairwiseTerm {
  std::vector<float> deviation;  // pixels: [x, y], then for a bilateral term [red, green, blue]
  std::vector<float> compat;     // as in Term
  Normalization normalization = Normalization::symmetric;
};

// A spatial lattice (2 deviations, from the cache) or a bilateral one (5).
std::shared_ptr<Lattice> image_lattice(const uint8_t* image, int height, int width, const std::vector<float>& deviation,
                                       Normalization normalization, bool folded = false);

// image: [height, width, 3] or null where no term is bilateral. Throws std::invalid_argument on energies and
// compatibilities that are NaN or too large (mean_field.h) and on deviations that do not fit the image.
int infer(const uint8_t* image, int height, int width, const float* unary, int labels,
          const std::vector<PairwiseTerm>& terms, int iterations, float tolerance, float* q, bool fast = false);

// Spatial lattices, kept by size, deviation and normalisation; the least recently used are evicted first.
void clear_spatial_cache();
struct CacheInfo {
  size_t lattices, bytes, hits, misses;
};
CacheInfo spatial_cache_info();

}  // namespace lidcam::crf
