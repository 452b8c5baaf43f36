// The kernels of the dense CRF that kernels/cuda/launch.cpp starts, in this order.
#include "crf/mean_field.cuh"

extern __shared__ __align__(16) unsigned char lidcam_crf_shared[];

namespace lidcam::crf::cuda {

__device__ inline unsigned char* memory_of(unsigned char* memory, const Args& args, int64_t image, int term) {
  return memory + (image * args.terms + term) * place(int64_t(args.height) * args.width, args.capacity, args.slots,
                                                      args.labels).bytes;
}

// Grid: x over slots and neighbours, y over images and terms.
extern "C" __global__ void __launch_bounds__(512) lidcam_crf_clear(Args args, unsigned char* memory) {
  const Place where = place(int64_t(args.height) * args.width, args.capacity, args.slots, args.labels);
  const Memory m(memory_of(memory, args, blockIdx.y / args.terms, blockIdx.y % args.terms), where);
  const int64_t k = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
  if (k < args.slots) m.keys[k] = kEmpty;
  if (k < 2 * kCorners * int64_t(args.capacity)) m.neighbor[k] = 0;
  if (k < 4) m.counts[k] = 0;
}

// Grid: x over pixels, rounded up to four; y over images and terms.
extern "C" __global__ void __launch_bounds__(512)
    lidcam_crf_vertices(const uint8_t* image, Args args, unsigned char* memory) {
  const int term = blockIdx.y % args.terms, p = blockIdx.x * blockDim.x + threadIdx.x;
  const int64_t i = blockIdx.y / args.terms, pixels = int64_t(args.height) * args.width;
  if (p >= (pixels + 3) / 4 * 4) return;
  const Memory m(memory_of(memory, args, i, term), place(pixels, args.capacity, args.slots, args.labels));
  const uint8_t* own = image + 3 * i * pixels;
  if (args.term[term].dimension == 2) add_pixel<2>(m, args, args.term[term], own, p);
  else add_pixel<5>(m, args, args.term[term], own, p);
}

// Grid: x over pixels and slots; y over images and terms.
extern "C" __global__ void __launch_bounds__(512) lidcam_crf_neighbours(Args args, unsigned char* memory) {
  const int term = blockIdx.y % args.terms, k = blockIdx.x * blockDim.x + threadIdx.x;
  const Memory m(memory_of(memory, args, blockIdx.y / args.terms, term),
                 place(int64_t(args.height) * args.width, args.capacity, args.slots, args.labels));
  if (args.term[term].dimension == 2) connect<2>(m, args, k);
  else connect<5>(m, args, k);
}

extern "C" __global__ void __launch_bounds__(512)
    lidcam_crf(const float* unary, Args args, unsigned char* memory, float* q, int* status) {
  const int64_t i = blockIdx.x, n = int64_t(args.labels) * args.height * args.width;
  mean_field(Block{}, args, unary + i * n, memory_of(memory, args, i, 0), q + i * n, status + i, lidcam_crf_shared);
}

extern "C" __global__ void __launch_bounds__(512)
    lidcam_crf_cluster(const float* unary, Args args, unsigned char* memory, float* q, int* status) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  const Cluster team;
  const int64_t i = blockIdx.x / team.size(), n = int64_t(args.labels) * args.height * args.width;
  mean_field(team, args, unary + i * n, memory_of(memory, args, i, 0), q + i * n, status + i, lidcam_crf_shared);
#endif
}

}  // namespace lidcam::crf::cuda
