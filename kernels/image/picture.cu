// A picture's way into the network and a map's way through the dense CRF, on the device. A thread per pixel of the
// result, in a grid over all of them; y runs over the images of a batch where there is one.
#include <cstdint>

namespace lidcam::image::cuda {

// Along one axis, Pillow's resampling of bytes: whole weights of 2^-22, rounded once for each axis. values: `taps` for
// each place of the result, of which bounds (first source, how many) names those that count.
struct Weights {
  const int* bounds;
  const int* values;
  int taps, size;
};

__device__ inline int64_t this_thread() { return blockIdx.x * int64_t(blockDim.x) + threadIdx.x; }

__device__ inline uint8_t clip(int v) { return uint8_t(v < 0 ? 0 : v > 255 ? 255 : v); }

// from: uint8 [height, width, 3].
extern "C" __global__ void __launch_bounds__(256)
    lidcam_resample(const uint8_t* from, int height, int width, int along_x, Weights axis, uint8_t* to) {
  const int columns = along_x ? axis.size : width, rows = along_x ? height : axis.size;
  const int64_t i = this_thread();
  if (i >= int64_t(rows) * columns) return;
  const int y = int(i / columns), x = int(i - int64_t(y) * columns), place = along_x ? x : y;
  const int first = axis.bounds[2 * place], count = axis.bounds[2 * place + 1];
  const int* weight = axis.values + int64_t(place) * axis.taps;
  const uint8_t* p = from + 3 * (along_x ? int64_t(y) * width + first : int64_t(first) * width + x);
  const int64_t step = along_x ? 3 : 3 * int64_t(width);
  int sum[3] = {1 << 21, 1 << 21, 1 << 21};
  for (int k = 0; k < count; ++k, p += step)
#pragma unroll
    for (int c = 0; c < 3; ++c) sum[c] += p[c] * weight[k];
#pragma unroll
  for (int c = 0; c < 3; ++c) to[3 * i + c] = clip(sum[c] >> 22);
}

// The unary energies of maps: table float [255, 2, 256] by level, label and value of the map. found [image] has been 0
// and gets 1 where the map is above its level anywhere, 2 where it is not.
extern "C" __global__ void __launch_bounds__(256)
    lidcam_energies(const uint8_t* map, const float* threshold, const float* table, int pixels, float* unary,
                    int* found) {
  const int64_t image = blockIdx.y, p = this_thread();
  const float level = floorf(threshold[image]);
  int seen = 0;
  if (p < pixels) {
    const int value = map[image * pixels + p], row = int(level < 0 ? 0 : level > 254 ? 254 : level);
    seen = float(value) > level ? 1 : 2;
    for (int l = 0; l < 2; ++l) unary[(2 * image + l) * pixels + p] = table[(2 * row + l) * 256 + value];
  }
  for (int lanes = 16; lanes > 0; lanes /= 2) seen |= __shfl_xor_sync(0xffffffffu, seen, lanes);
  if (threadIdx.x % 32 == 0 && seen) atomicOr(&found[image], seen);
}

// Refined maps round(255 q1) of q float [image, 2, pixels]; masks that were empty or full stay so.
extern "C" __global__ void __launch_bounds__(256)
    lidcam_refined(const float* q, const int* found, int pixels, uint8_t* map) {
  const int64_t image = blockIdx.y, p = this_thread();
  if (p >= pixels) return;
  const int seen = found[image];
  const float value = seen == 3 ? rintf(255.0f * q[(2 * image + 1) * pixels + p]) : seen == 1 ? 255.0f : 0.0f;
  map[image * pixels + p] = uint8_t(value);
}

extern "C" __global__ void __launch_bounds__(256) lidcam_zero(int* words, int count) {
  if (this_thread() < count) words[this_thread()] = 0;
}

}  // namespace lidcam::image::cuda
