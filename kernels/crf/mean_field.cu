// The kernels of the dense CRF that kernels/cuda/launch.cpp starts, in this order.
#include "crf/mean_field.cuh"

extern __shared__ __align__(16) unsigned char lidcam_crf_shared[];

namespace lidcam::crf::cuda {

__device__ inline unsigned char* memory_of(unsigned char* memory, const Args& args, int64_t image, int term) {
  return memory + (image * args.terms + term) *
                      place(int64_t(args.height) * args.width, args.capacity, args.slots, args.channels).bytes;
}

// Arrays that all images share.
extern "C" __global__ void __launch_bounds__(512) lidcam_crf_words(Words words, int* to) {
  const int k = blockIdx.x * blockDim.x + threadIdx.x;
  if (k < words.count) to[k] = words.value[k];
}

// Grid: x over slots and neighbours, y over images and terms.
extern "C" __global__ void __launch_bounds__(512)
    lidcam_crf_clear(const __grid_constant__ Args args, unsigned char* memory) {
  const Place where = place(int64_t(args.height) * args.width, args.capacity, args.slots, args.channels);
  const Memory m(memory_of(memory, args, blockIdx.y / args.terms, blockIdx.y % args.terms), where);
  const int64_t k = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
  if (k < args.slots) m.keys[k] = kEmpty;
  if (k < 2 * kCorners * int64_t(args.capacity)) m.neighbor[k] = 0;
  if (k < 4) m.counts[k] = 0;
}

// Grid: x over pixels, rounded up to four; y over images and terms.
extern "C" __global__ void __launch_bounds__(512)
    lidcam_crf_vertices(const uint8_t* image, const __grid_constant__ Args args, unsigned char* memory) {
  const int term = blockIdx.y % args.terms, p = blockIdx.x * blockDim.x + threadIdx.x;
  const int64_t i = blockIdx.y / args.terms, pixels = int64_t(args.height) * args.width;
  if (p >= (pixels + 3) / 4 * 4) return;
  const Memory m(memory_of(memory, args, i, term), place(pixels, args.capacity, args.slots, args.channels));
  const uint8_t* rgb = image + 3 * i * pixels;
  if (args.term[term].dimension == 2)
    add_pixel<2>(m, args, args.term[term], rgb, p);
  else
    add_pixel<5>(m, args, args.term[term], rgb, p);
}

// Grid: x over pixels and slots; y over images and terms.
extern "C" __global__ void __launch_bounds__(512)
    lidcam_crf_neighbours(const __grid_constant__ Args args, unsigned char* memory) {
  const int term = blockIdx.y % args.terms, k = blockIdx.x * blockDim.x + threadIdx.x;
  const Memory m(memory_of(memory, args, blockIdx.y / args.terms, term),
                 place(int64_t(args.height) * args.width, args.capacity, args.slots, args.channels));
  if (args.term[term].dimension == 2)
    connect<2>(m, args, k);
  else
    connect<5>(m, args, k);
}

template <class Team>
__device__ void image_field(const Team& team, int64_t i, const float* unary, const Args& args, unsigned char* memory,
                            float* q, int* status) {
  const int64_t pixels = int64_t(args.height) * args.width, n = args.labels * pixels;
  const int* words = reinterpret_cast<const int*>(memory + args.words);
  float* kept = args.kept ? reinterpret_cast<float*>(memory + args.kept) + i * args.channels * pixels : nullptr;
  const int* present = args.lists < 0 ? nullptr : words + args.lists + i * args.list;
  mean_field(team, args, unary + i * n, memory_of(memory, args, i, 0), reinterpret_cast<const float*>(words), present,
             kept, q + i * n, status + i, lidcam_crf_shared);
}

// One block per multiprocessor: its registers then hold all that a thread needs.
extern "C" __global__ void __launch_bounds__(512, 1)
    lidcam_crf(const float* unary, const __grid_constant__ Args args, unsigned char* memory, float* q, int* status) {
  image_field(Block{}, blockIdx.x, unary, args, memory, q, status);
}

extern "C" __global__ void __launch_bounds__(512, 1)
    lidcam_crf_cluster(const float* unary, const __grid_constant__ Args args, unsigned char* memory, float* q,
                       int* status) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  const Cluster team;
  image_field(team, blockIdx.x / team.size(), unary, args, memory, q, status);
#endif
}

}  // namespace lidcam::crf::cuda
