// The kernels that kernels/cuda/launch_boxes.cpp starts: the bits of all masks over the whole grid, then a block per
// mask for its box. memory: `stride` bytes for every mask, the bits first.
#include "components/components.cuh"

#include "components/bits.cuh"

using namespace lidcam::components::cuda;

extern __shared__ __align__(16) unsigned char lidcam_boxes_shared[];

// `parts` blocks per mask: mask_bit_blocks(height, width).
extern "C" __global__ void __launch_bounds__(lidcam::components::cuda::kBitThreads)
    lidcam_mask_bits(const uint8_t* mask, int height, int width, unsigned parts, unsigned char* memory,
                     long long stride) {
  const int64_t i = blockIdx.x / parts;
  make_mask_bits(mask + i * height * width, height, width, blockIdx.x % parts,
                 reinterpret_cast<uint32_t*>(memory + i * stride));
}

// `parts` blocks per map: map_bit_blocks(height, width).
extern "C" __global__ void __launch_bounds__(lidcam::components::cuda::kBitThreads)
    lidcam_map_bits(const uint8_t* map, const float* level, int map_height, int map_width, int height, int width,
                    unsigned parts, unsigned char* memory, long long stride) {
  const int64_t i = blockIdx.x / parts;
  make_map_bits(map + i * map_height * map_width, map_height, map_width, level[i], height, width, blockIdx.x % parts,
                reinterpret_cast<uint32_t*>(memory + i * stride));
}

extern "C" __global__ void __launch_bounds__(lidcam::components::cuda::kThreads)
    lidcam_boxes(int height, int width, int by_pixels, int shared_bytes, unsigned char* memory, long long stride,
                 int* boxes) {
  const int64_t i = blockIdx.x;
  largest_box(height, width, by_pixels, boxes + 4 * i, lidcam_boxes_shared, shared_bytes, memory + i * stride);
}
