// The kernels of PaS that kernels/cuda/launch_pas.cpp starts. Map i is that of block i, or of cluster i.
#include "pas/pas.cuh"

using namespace lidcam::pas::cuda;

extern __shared__ __align__(16) unsigned char lidcam_pas_shared[];

namespace {

template <bool kBytes, class Team>
__device__ void pas_of(const Team& team, const float* cam, const Args& args, const Plan& plan, uint8_t* map,
                       uint8_t* mask, float* threshold) {
  const int64_t i = blockIdx.x / unsigned(team.size()), n = int64_t(args.height) * args.width;
  pas_map<uint8_t, kBytes>(team, cam + i * args.h * args.w, args, &plan, map + i * n, mask + i * n, threshold + i,
                           lidcam_pas_shared);
}

}  // namespace

#define LIDCAM_PAS(name)                                     \
  extern "C" __global__ void __launch_bounds__(512, 1) name( \
      const float* cam, Args args, const __grid_constant__ Plan plan, uint8_t* map, uint8_t* mask, float* threshold)

// With every option; and where takes_bytes(), with shared_with_bytes() of shared memory.
LIDCAM_PAS(lidcam_pas) { pas_of<false>(Block{}, cam, args, plan, map, mask, threshold); }
LIDCAM_PAS(lidcam_pas_bytes) { pas_of<true>(Block{}, cam, args, plan, map, mask, threshold); }

// The same for clusters.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define LIDCAM_IF_CLUSTERS(...) __VA_ARGS__
#else
#define LIDCAM_IF_CLUSTERS(...)
#endif
LIDCAM_PAS(lidcam_pas_cluster) { LIDCAM_IF_CLUSTERS(pas_of<false>(Cluster{}, cam, args, plan, map, mask, threshold);) }
LIDCAM_PAS(lidcam_pas_bytes_cluster) {
  LIDCAM_IF_CLUSTERS(pas_of<true>(Cluster{}, cam, args, plan, map, mask, threshold);)
}
