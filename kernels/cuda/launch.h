// The kernels on device memory: each call enqueues its work on the stream and returns. Pointers are device pointers.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "cuda/driver.h"
#include "pas/pas.h"

namespace lidcam::cuda {

// `count` maps float32 [count, h, w] -> map uint8 [count, height, width], mask uint8 (0 or 1) of the same shape,
// threshold float32 [count]. The same bits as lidcam::pas::pas_batch. One launch, no workspace.
// Throws Error; std::invalid_argument for a size out of range (sides 1 to 32768).
void launch_pas(Stream stream, const float* cam, int64_t count, int h, int w, int height, int width,
                const pas::Options& options, uint8_t* map, uint8_t* mask, float* threshold);

// The same with map and mask as float32 (0..255, 0 or 1), for engines whose plugins have no byte outputs: the kernel
// lidcam_pas_aot of kernels/pas/pas_aot.cu.
void launch_pas_words(Stream stream, const float* cam, int64_t count, int h, int w, int height, int width,
                      const pas::Options& options, float* map, float* mask, float* threshold);

// The box of the largest component (8 neighbours) of each mask uint8 [count, height, width], nonzero is foreground:
// int32 [count, 4] x0, y0, x1, y1, the last two excluded; four times -1 for an empty mask. By the area inside the
// outer contour, or by pixels; the same boxes and ties as lidcam::components::Finder::largest. One launch.
// `workspace`: boxes_workspace(count, height, width) bytes, or null to take it from the stream's memory pool.
void launch_boxes(Stream stream, const uint8_t* mask, int64_t count, int height, int width, bool by_pixels,
                  int32_t* boxes, void* workspace = nullptr);
size_t boxes_workspace(int64_t count, int height, int width);

// The same at the size of the original picture, without storing it: each map uint8 [count, map_height, map_width] is
// resized bilinearly to (height, width), as cv2.resize does, and the mask is resized > level[i].
void launch_boxes_at_size(Stream stream, const uint8_t* map, const float* level, int64_t count, int map_height,
                          int map_width, int height, int width, bool by_pixels, int32_t* boxes,
                          void* workspace = nullptr);

// One term of a dense CRF: Gaussian over x and y, or bilateral over x, y and the three channels.
struct CrfTerm {
  bool bilateral = false;
  float deviation[5] = {1, 1, 1, 1, 1};  // standard deviations: pixels, pixels, and grey levels of each channel
  std::vector<float> compat = {1};     // as in crf/mean_field.h: a Potts weight; a vector; a symmetric matrix
  bool before = true, after = true;    // whether values are normalised before the splat, after the slice
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
// (then its q is not written). Four launches, lattices built on the device, and one more for each 960 numbers of
// arrays as compat and lists of labels. `workspace`: crf_workspace(...) bytes, or null to take it from the stream's
// memory pool. Throws as launch_pas does.
void launch_crf(Stream stream, const uint8_t* image, const float* unary, int64_t count, int labels, int height,
                int width, const CrfOptions& options, float* q, int32_t* status, void* workspace = nullptr);
size_t crf_workspace(int64_t count, int labels, int height, int width, const CrfOptions& options);

// PTX of lidcam_pas_aot (kernels/pas/pas_aot.cu lists its arguments) for a device of this major compute capability,
// and how many blocks share a map: grid = count * blocks_per_map. Empty when compiled() is false.
struct AheadOfTime {
  std::string ptx;
  int blocks_per_map = 1;
};
AheadOfTime pas_ahead_of_time(int major);

}  // namespace lidcam::cuda
