// The kernels that kernels/cuda/launch.cpp starts: block i finds the box of mask i.
#include "components/components.cuh"

using namespace lidcam::components::cuda;

extern __shared__ __align__(16) unsigned char lidcam_boxes_shared[];

// memory: `stride` bytes for every mask.
extern "C" __global__ void __launch_bounds__(512)
    lidcam_boxes(const uint8_t* mask, int height, int width, int by_pixels, int shared_bytes, unsigned char* memory,
                 long long stride, int* boxes) {
  const int64_t i = blockIdx.x;
  largest_box(MaskSource(mask + i * height * width, width), height, width, by_pixels, boxes + 4 * i,
              lidcam_boxes_shared, shared_bytes, memory + i * stride);
}

// memory: `stride` bytes for every map, of which 8 (height + width) are for the weights of the resize.
extern "C" __global__ void __launch_bounds__(512)
    lidcam_boxes_at_size(const uint8_t* map, const float* level, int map_height, int map_width, int height, int width,
                         int by_pixels, int shared_bytes, unsigned char* memory, long long stride, int* boxes) {
  const int64_t i = blockIdx.x;
  LinearTap* taps = reinterpret_cast<LinearTap*>(memory + i * stride);
  for (int k = threadIdx.x; k < width + height; k += blockDim.x)
    taps[k] = k < width ? linear_tap(k, map_width, width, true) : linear_tap(k - width, map_height, height, false);
  __syncthreads();
  const ResizedSource source{
      map + i * map_height * map_width, map_height, map_width, height, width, level[i], taps, taps + width};
  largest_box(source, height, width, by_pixels, boxes + 4 * i, lidcam_boxes_shared, shared_bytes,
              reinterpret_cast<unsigned char*>(taps + width + height));
}
