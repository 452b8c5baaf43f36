// What a launch of the CUDA kernels of PaS needs to know; read by nvcc and by the host's compiler.
#pragma once
#include <cstdint>

namespace lidcam::pas::cuda {

enum Flag : int32_t {
  kNormalize = 1,  // mode `normalize`
  kFloat = 2,      // precision `float`
  kRaw = 4,        // where `raw`
  kLinear = 8,     // interpolation `linear`
  kIntegers = 16,  // words are int32 instead of float32 (only where outputs are words)
};

struct Args {
  int h, w, height, width;
  int percentile_milli;  // rint(1000 percentile)
  int theta_micro;       // rint(1000000 theta)
  int flags;
  int shared_bytes;  // dynamic shared memory of the launch
};

// Shared memory, bytes: fixed; per distinct weight of an axis; the map itself. The last two are used where they fit.
constexpr int kFixedBytes = 8960, kTapBytes = 20;
constexpr int kThreads = 512;

}  // namespace lidcam::pas::cuda
