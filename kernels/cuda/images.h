// The compiled kernels, embedded. Empty (size 0) in a build without nvcc.
#pragma once
#include <cstddef>
#include <string>

#include "cuda/driver.h"

namespace lidcam::cuda {

const void* image_data(Image image);
size_t image_size(Image image);
// PTX of lidcam_pas_aot, for compute capability 7.5 and later or 9.0 and later.
std::string aot_ptx(bool clusters);
// What the fatbins hold, as "sm_75 sm_80 ... compute_120".
const char* architectures();

}  // namespace lidcam::cuda
