// The CUDA kernels of PaS under the shim, as a library for ctypes.
// g++ -include cuda/shim/cuda_on_cpu.h -I kernels/cuda/shim -I kernels
#include "pas/pas.cu"
#include "pas/pas_aot.cu"

constexpr size_t kCapacity = 128 * 1024;
thread_local __align__(16) unsigned char lidcam_pas_shared[kCapacity];
thread_local __align__(16) unsigned char lidcam_pas_aot_shared[kCapacity];

// Of each map the blocks run in turn; order 0 forward, 1 reverse, 2 random by seed.
extern "C" void run_pas(const float* cam, int count, const Args* args, int threads, int cluster, int order,
                        uint64_t seed, uint8_t* map, uint8_t* mask, float* threshold) {
  lidcam::shim::Grid grid{unsigned(count * cluster), unsigned(threads), cluster, size_t(args->shared_bytes), kCapacity,
                          lidcam::shim::Order(order), seed};
  lidcam::shim::launch(grid, [] { return lidcam_pas_shared; }, [=] {
    if (cluster > 1) lidcam_pas_cluster(cam, *args, map, mask, threshold);
    else lidcam_pas(cam, *args, map, mask, threshold);
  });
}

extern "C" void run_pas_aot(const float* cam, int count, const Args* args, int threads, int order, uint64_t seed,
                            uint32_t* map, uint32_t* mask, float* threshold) {
  lidcam::shim::Grid grid{unsigned(count), unsigned(threads), 1, size_t(args->shared_bytes), kCapacity,
                          lidcam::shim::Order(order), seed};
  lidcam::shim::launch(grid, [] { return lidcam_pas_aot_shared; }, [=] {
    lidcam_pas_aot(cam, nullptr, args->h, args->w, args->height, args->width, args->percentile_milli,
                   args->theta_micro, args->flags, args->shared_bytes, map, mask, threshold);
  });
}
