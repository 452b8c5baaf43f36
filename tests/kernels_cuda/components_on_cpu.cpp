// The CUDA kernels of components under the shim, as a library for ctypes.
// g++ -include cuda/shim/cuda_on_cpu.h -I kernels/cuda/shim -I kernels
#include "components/components.cu"

constexpr size_t kCapacity = 128 * 1024;
thread_local __align__(16) unsigned char lidcam_boxes_shared[kCapacity];

// order 0 forward, 1 reverse, 2 random by seed.
extern "C" void run_boxes(const uint8_t* mask, int count, int height, int width, int by_pixels, int shared_bytes,
                          int threads, int order, uint64_t seed, int* boxes) {
  const int64_t stride = run_bytes(height, width);
  std::vector<unsigned char> memory(count * stride, 0xff);
  const lidcam::shim::Grid grid{unsigned(count), unsigned(threads), 1, size_t(shared_bytes), kCapacity,
                                lidcam::shim::Order(order), seed};
  lidcam::shim::launch(grid, [] { return lidcam_boxes_shared; }, [&] {
    lidcam_boxes(mask, height, width, by_pixels, shared_bytes, memory.data(), stride, boxes);
  });
}

extern "C" void run_boxes_at_size(const uint8_t* map, const float* level, int count, int map_height, int map_width,
                                  int height, int width, int by_pixels, int shared_bytes, int threads, int order,
                                  uint64_t seed, int* boxes) {
  const int64_t stride = resized_run_bytes(height, width);
  std::vector<unsigned char> memory(count * stride, 0xff);
  const lidcam::shim::Grid grid{unsigned(count), unsigned(threads), 1, size_t(shared_bytes), kCapacity,
                                lidcam::shim::Order(order), seed};
  lidcam::shim::launch(grid, [] { return lidcam_boxes_shared; }, [&] {
    lidcam_boxes_at_size(map, level, map_height, map_width, height, width, by_pixels, shared_bytes, memory.data(),
                         stride, boxes);
  });
}
