// The CUDA sources, unmodified, compiled for the CPU: include after cuda/shim/cuda_on_cpu.h.
#pragma once
#include "components/components.cu"
#include "pas/pas.cu"
#include "pas/pas_aot.cu"

namespace on_cpu {

constexpr size_t kCapacity = 128 * 1024;

}  // namespace on_cpu

thread_local __align__(16) unsigned char lidcam_pas_shared[on_cpu::kCapacity];
thread_local __align__(16) unsigned char lidcam_pas_aot_shared[on_cpu::kCapacity];
thread_local __align__(16) unsigned char lidcam_boxes_shared[on_cpu::kCapacity];

namespace on_cpu {

using lidcam::shim::Grid;
using PasArgs = lidcam::pas::cuda::Args;

inline Grid grid(int64_t maps, int threads, int cluster, int shared, int order, uint64_t seed) {
  return {unsigned(maps * cluster), unsigned(threads), cluster, size_t(shared), kCapacity, lidcam::shim::Order(order),
          seed};
}

inline void pas(Grid g, const float* cam, PasArgs args, uint8_t* map, uint8_t* mask, float* threshold) {
  lidcam::shim::launch(g, [] { return lidcam_pas_shared; }, [=] {
    if (g.cluster > 1) lidcam_pas_cluster(cam, args, map, mask, threshold);
    else lidcam_pas(cam, args, map, mask, threshold);
  });
}

inline void pas_aot(Grid g, const float* cam, PasArgs a, uint32_t* map, uint32_t* mask, float* threshold) {
  lidcam::shim::launch(g, [] { return lidcam_pas_aot_shared; }, [=] {
    lidcam_pas_aot(cam, nullptr, a.h, a.w, a.height, a.width, a.percentile_milli, a.theta_micro, a.flags,
                   a.shared_bytes, map, mask, threshold);
  });
}

inline void boxes(Grid g, const uint8_t* mask, int height, int width, int by_pixels, unsigned char* memory,
                  long long stride, int* out) {
  lidcam::shim::launch(g, [] { return lidcam_boxes_shared; }, [=] {
    lidcam_boxes(mask, height, width, by_pixels, int(g.shared), memory, stride, out);
  });
}

inline void boxes_at_size(Grid g, const uint8_t* map, const float* level, int map_height, int map_width, int height,
                          int width, int by_pixels, unsigned char* memory, long long stride, int* out) {
  lidcam::shim::launch(g, [] { return lidcam_boxes_shared; }, [=] {
    lidcam_boxes_at_size(map, level, map_height, map_width, height, width, by_pixels, int(g.shared), memory, stride,
                         out);
  });
}

}  // namespace on_cpu
