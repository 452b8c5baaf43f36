// The dense CRF on device memory. Pointers are device pointers; each call enqueues its work on the stream and returns.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "cuda/driver.h"

namespace lidcam::cuda {

// One term of a dense CRF: Gaussian over x and y, or bilateral over x, y and the three channels.
struct CrfTerm {
  bool bilateral = false;
  float deviation[5] = {1, 1, 1, 1, 1};  // standard deviations: pixels, pixels, and grey levels of each channel
  std::vector<float> compat = {1};       // as in crf/mean_field.h: a Potts weight; a vector; a symmetric matrix
  bool before = true, after = true;      // whether values are normalised before the splat, after the slice
};

struct CrfOptions {
  std::vector<CrfTerm> terms;  // 1 to 4
  int iterations = 10;
  float tolerance = 0;  // an image is done when no probability moved by more; 0: never
  // The labels present, ascending: of each image, one list for all images, or none: all. Others get probability 0.
  std::vector<std::vector<int>> labels;
  int capacity = 0;  // lattice vertices of a term; 0: twice the number of pixels
};

// Mean field of a dense CRF as lidcam::crf::mean_field for `count` images of one size:
// image uint8 [count, height, width, 3]; unary float32 [count, labels, height, width], negative log probabilities;
// q float32 of the same shape. status int32 [count]: 0, or 1 where an image has more lattice vertices than the capacity
// (then its q is not written). The launches of crf/cuda_steps.h, and one more for each 960 numbers of arrays as compat
// and lists of labels. `workspace`: of crf_workspace(...) bytes or more; else memory is taken from the
// device's pool. Throws as launch_pas does.
void launch_crf(Stream stream, const uint8_t* image, const float* unary, int64_t count, int labels, int height,
                int width, const CrfOptions& options, float* q, int32_t* status, const Workspace& workspace = {});
size_t crf_workspace(int64_t count, int labels, int height, int width, const CrfOptions& options);

}  // namespace lidcam::cuda
