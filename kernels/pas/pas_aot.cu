// PaS as one kernel with int32 scalars only and word outputs, for TensorRT's ahead-of-time plugins (compiled to PTX).
// Arguments in the order inputs, scalars, outputs:
//   cam               float32 [count, h, w]
//   like              any type, [..., height, width]: never read, its shape gave the output size
//   h, w              size of the activation map
//   height, width     size of the output
//   percentile_milli  rint(1000 percentile)
//   theta_micro       rint(1000000 theta)
//   flags             1 mode `normalize`, 2 precision `float`, 4 where `raw`, 8 interpolation `linear`,
//                     16 map and mask are int32 instead of float32
//   shared_bytes      dynamic shared memory of the launch, at least kFixedBytes; 49152 serves every size
//   map, mask         float32 (or int32) [count, height, width], values 0..255 and 0 or 1
//   threshold         float32 [count]
// Launch: block 32 to 512 threads (a multiple of 32, 512 is best); grid `count` blocks where compiled for compute
// capability below 9, 8 `count` blocks where compiled for 9 or later (a cluster of 8 per map, fixed in the PTX).
#include "pas/pas.cuh"

using namespace lidcam::pas::cuda;

extern __shared__ __align__(16) unsigned char lidcam_pas_aot_shared[];

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define LIDCAM_AOT_CLUSTER __cluster_dims__(8, 1, 1)
using Team = Cluster;
#else
#define LIDCAM_AOT_CLUSTER
using Team = Block;
#endif

extern "C" __global__ void LIDCAM_AOT_CLUSTER __launch_bounds__(512, 1)
    lidcam_pas_aot(const float* cam, const void* /*like*/, int h, int w, int height, int width, int percentile_milli,
                   int theta_micro, int flags, int shared_bytes, uint32_t* map, uint32_t* mask, float* threshold) {
  const Args args{h, w, height, width, percentile_milli, theta_micro, flags, shared_bytes};
  const Team team;
  const int64_t i = blockIdx.x / team.size(), n = int64_t(height) * width;
  pas_map<uint32_t, false>(team, cam + i * h * w, args, nullptr, map + i * n, mask + i * n, threshold + i,
                           lidcam_pas_aot_shared);
}
