// The kernels of PaS that kernels/cuda/launch_pas.cpp starts. Map i is that of block i, or of cluster i.
#include "pas/pas.cuh"

using namespace lidcam::pas::cuda;

extern __shared__ __align__(16) unsigned char lidcam_pas_shared[];

extern "C" __global__ void __launch_bounds__(512)
    lidcam_pas(const float* cam, Args args, const __grid_constant__ Taps taps, uint8_t* map, uint8_t* mask,
               float* threshold) {
  const int64_t i = blockIdx.x, n = int64_t(args.height) * args.width;
  pas_map<uint8_t, false>(Block{}, cam + i * args.h * args.w, args, &taps, map + i * n, mask + i * n, threshold + i,
                          lidcam_pas_shared);
}

extern "C" __global__ void __launch_bounds__(512)
    lidcam_pas_cluster(const float* cam, Args args, const __grid_constant__ Taps taps, uint8_t* map, uint8_t* mask,
                       float* threshold) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  const Cluster team;
  const int64_t i = blockIdx.x / team.size(), n = int64_t(args.height) * args.width;
  pas_map<uint8_t, false>(team, cam + i * args.h * args.w, args, &taps, map + i * n, mask + i * n, threshold + i,
                          lidcam_pas_shared);
#endif
}

// Where fits_registers(), with shared_bytes() of shared memory.
extern "C" __global__ void __launch_bounds__(512)
    lidcam_pas_kept(const float* cam, Args args, const __grid_constant__ Taps taps, uint8_t* map, uint8_t* mask,
                    float* threshold) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  const Cluster team;
  const int64_t i = blockIdx.x / team.size(), n = int64_t(args.height) * args.width;
  pas_map<uint8_t, true>(team, cam + i * args.h * args.w, args, &taps, map + i * n, mask + i * n, threshold + i,
                         lidcam_pas_shared);
#endif
}
