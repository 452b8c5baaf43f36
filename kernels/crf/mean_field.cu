// The kernels of the dense CRF, in the order of cuda_steps.h. In a grid, x runs over what a comment says (a block per
// tile, else a thread per thing) and y over images and their terms, in the last over images.
#include "crf/mean_field.cuh"

namespace lidcam::crf::cuda {

__device__ inline int this_thread() { return int(blockIdx.x * blockDim.x + threadIdx.x); }
__device__ inline int threads() { return int(gridDim.x * blockDim.x); }

// `to` becomes the largest of all threads' `mine`, where that is larger. mine >= 0.
__device__ inline void largest_of(int mine, int* to) {
  for (int lanes = 16; lanes > 0; lanes /= 2) mine = max(mine, __shfl_xor_sync(0xffffffffu, mine, lanes));
  if (mine > 0 && threadIdx.x % 32 == 0) atomicMax(to, mine);
}

// Thread 0 gets the largest of all threads' `mine`; all call it. shared: a word per warp.
__device__ inline int largest_in_block(int mine, int* shared) {
  for (int lanes = 16; lanes > 0; lanes /= 2) mine = max(mine, __shfl_xor_sync(0xffffffffu, mine, lanes));
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = mine;
  __syncthreads();
  for (int i = 0; i < int(blockDim.x / 32); ++i) mine = max(mine, shared[i]);
  return mine;
}

struct alignas(16) TwoKeys {
  Key a, b;
};

// An image and one of its terms.
struct Part {
  Image image;
  int t;
  Memory memory;
  const Term& term;

  __device__ Part(const Args& args, unsigned char* m)
      : image(args, m, blockIdx.y / args.terms),
        t(int(blockIdx.y % args.terms)),
        memory(image.of(t)),
        term(args.term[t]) {}
  __device__ int vertices() const { return memory.counts[0]; }
  __device__ bool normalised() const { return term.before || term.after; }
  // The table that a phase of the blur writes.
  __device__ float* table(int phase) const { return phase % 2 ? memory.second : memory.first; }
};

// Arrays that all images share.
extern "C" __global__ void __launch_bounds__(kThreads) lidcam_crf_words(Words words, int* to) {
  const int k = this_thread();
  if (k < words.count) to[k] = words.value[k];
}

// x: pairs of slots. An empty table.
extern "C" __global__ void __launch_bounds__(kThreads)
    lidcam_crf_clear(Arrays arrays, const __grid_constant__ Args args, int, int) {
  const Part part(args, arrays.memory);
  const int k = this_thread();
  if (k < args.slots / 2) reinterpret_cast<TwoKeys*>(part.memory.keys)[k] = {kEmpty, kEmpty};
  if (k < kCounts) part.memory.counts[k] = 0;
  if (k == 0) part.memory.first[0] = part.memory.second[0] = 0.0f;
}

// x: tiles.
extern "C" __global__ void __launch_bounds__(kTileThreads)
    lidcam_crf_vertices(Arrays arrays, const __grid_constant__ Args args, int, int) {
  __shared__ TileTable table;
  const Part part(args, arrays.memory);
  const uint8_t* rgb = arrays.image + 3 * part.image.index * part.image.pixels;
  if (part.term.dimension == 2)
    add_tile<2>(part.memory, args, part.term, rgb, &table);
  else
    add_tile<5>(part.memory, args, part.term, rgb, &table);
}

// x: vertices and directions. Neighbours, rows in place of slots in the tiles' lists, and sums of 0.
extern "C" __global__ void __launch_bounds__(kThreads)
    lidcam_crf_neighbours(Arrays arrays, const __grid_constant__ Args args, int, int) {
  const Part part(args, arrays.memory);
  const Memory& m = part.memory;
  const int vertices = part.vertices(), directions = part.term.dimension + 1;
  if (vertices > args.capacity) return;
  for (int64_t i = this_thread(); i < int64_t(vertices) * directions; i += threads()) {
    const int j = int(i / vertices), v = int(i - int64_t(j) * vertices);
    m.near[int64_t(j) * args.capacity + v] =
        directions == 3 ? neighbours<2>(m, args, v, j) : neighbours<5>(m, args, v, j);
  }
  for (int v = this_thread(); v <= vertices; v += threads()) m.sums[v] = 0;
  for (int tile = blockIdx.x; tile < tiles(args.height, args.width); tile += gridDim.x) {
    int* list = m.list + int64_t(tile) * kTileCorners;
    for (int i = threadIdx.x; i < m.lengths[tile]; i += blockDim.x) list[i] = m.ids[list[i]] + 1;
  }
}

// x: tiles. What every vertex weighs.
extern "C" __global__ void __launch_bounds__(kTileThreads)
    lidcam_crf_weigh(Arrays arrays, const __grid_constant__ Args args, int, int) {
  __shared__ TileSums shared;
  const Part part(args, arrays.memory);
  if (!part.image.fits()) return;
  const Field f(part.image, part.t);
  sum_weights(f, Spot(args.width), &shared);
  int largest = 0;
  for (int i = threadIdx.x; i < f.length; i += blockDim.x) {
    largest = max(largest, shared.sums[i]);
    atomicAdd(&f.sums[f.list[i]], (unsigned long long)(long long)shared.sums[i]);
  }
  __syncthreads();
  largest = largest_in_block(largest, shared.sums);
  if (threadIdx.x == 0) part.memory.heaviest[blockIdx.x] = largest;
}

// x: vertices.
extern "C" __global__ void __launch_bounds__(kThreads)
    lidcam_crf_blur_weights(Arrays arrays, const __grid_constant__ Args args, int, int phase) {
  const Part part(args, arrays.memory);
  const Memory& m = part.memory;
  if (!part.image.fits() || !part.normalised() || phase >= phases(part.term)) return;
  const int vertices = part.vertices();
  const float* from = part.table(phase + 1);
  float* to = part.table(phase);
  if (phase == 0) {
    const auto* wide = reinterpret_cast<const long long*>(m.sums);
    blur(m, args, part.term, 0, vertices, 1, to, this_thread(), threads(),
         [&](int row, int) { return float(wide[row]) * (1.0f / kUnit); });
    return;
  }
  blur(m, args, part.term, phase, vertices, 1, to, this_thread(), threads(), [&](int row, int) { return from[row]; });
}

// x: tiles. Norms, and a bound of the sums of tiles.
extern "C" __global__ void __launch_bounds__(kTileThreads)
    lidcam_crf_norms(Arrays arrays, const __grid_constant__ Args args, int, int) {
  __shared__ TileSums shared;
  const Part part(args, arrays.memory);
  if (!part.image.fits()) return;
  float norm = 1.0f;
  if (part.normalised())
    norm = make_norms(Field(part.image, part.t), part.memory, args, Spot(args.width), part.table(phases(part.term) - 1),
                      part.term.alpha, &shared);
  if (!part.term.before) norm = 1.0f;
  // The weights were rounded to halves of 1 / kUnit.
  const float bound = (float(part.memory.heaviest[blockIdx.x] + kTileCorners) * (1.0f / kUnit)) * norm;
  largest_of(int(fminf(bound, 1073741824.0f)) + 1, &part.memory.counts[1]);
}

// x: vertices and channels. Sums and rows of 0.
extern "C" __global__ void __launch_bounds__(kThreads)
    lidcam_crf_begin(Arrays arrays, const __grid_constant__ Args args, int, int) {
  const Part part(args, arrays.memory);
  const Memory& m = part.memory;
  const bool fits = part.image.fits();
  if (part.t == 0 && this_thread() == 0) arrays.status[part.image.index] = !fits;
  if (!fits) return;
  const int width = part.image.width();
  const int64_t n = (int64_t(part.vertices()) + 1) * width;
  for (int64_t i = this_thread(); i < n; i += threads()) m.sums[i] = 0;
  // The blur of the weights used the tables with rows of one channel.
  for (int c = this_thread(); c < width; c += threads()) m.first[c] = m.second[c] = 0.0f;
}

// x: vertices and channels. Iteration `number`, from 1.
extern "C" __global__ void __launch_bounds__(kThreads, 5)
    lidcam_crf_blur(Arrays arrays, const __grid_constant__ Args args, int number, int phase) {
  const Part part(args, arrays.memory);
  const Memory& m = part.memory;
  if (!part.image.fits()) return;
  if (args.kept) {
    const int stopped = *part.image.stopped();
    if (stopped && (stopped < number || phase > 0)) return;
    if (phase == 0) {
      // With a tolerance the last step is known only now; its messages are still there, so it will be done again.
      const bool rests = number > 1 && __int_as_float(part.image.change()[(number - 1) % 2]) <= args.tolerance;
      if (part.t == 0 && this_thread() == 0) {
        if (rests)
          *part.image.stopped() = number;
        else
          part.image.change()[number % 2] = 0;
      }
      if (rests) return;
    }
  }
  if (phase >= phases(part.term)) return;
  const int vertices = part.vertices(), width = part.image.width();
  const float* from = part.table(phase + 1);
  float* to = part.table(phase);
  if (phase == 0) {
    float scale, inverse;
    Field::scales(m, &scale, &inverse);
    const auto* sums = reinterpret_cast<const long long*>(m.sums);
    blur(m, args, part.term, 0, vertices, width, to, this_thread(), threads(),
         [&](int row, int c) { return float(sums[int64_t(row) * width + c]) * inverse; });
    return;
  }
  blur(m, args, part.term, phase, vertices, width, to, this_thread(), threads(),
       [&](int row, int c) { return from[int64_t(row) * width + c]; });
  if (phase == 1) {
    const int64_t n = (int64_t(vertices) + 1) * width;
    for (int64_t i = this_thread(); i < n; i += threads()) m.sums[i] = 0;
  }
}

// x: vertices and labels. A matrix acts on the vertices: it commutes with slicing, and there are fewer than pixels.
extern "C" __global__ void __launch_bounds__(kThreads)
    lidcam_crf_mix(Arrays arrays, const __grid_constant__ Args args, int number, int) {
  const Part part(args, arrays.memory);
  if (!part.image.fits() || part.term.compat != kMatrix) return;
  if (const int stopped = *part.image.stopped(); stopped && stopped <= number) return;
  const int labels = part.image.labels(), done = phases(part.term) - 1;
  const int* list = part.image.list();
  const float *compat = Field::words(part.image) + part.term.array, *from = part.table(done);
  float* to = part.table(done + 1);
  const int64_t n = int64_t(part.vertices()) * labels;
  for (int64_t i = this_thread(); i < n; i += threads()) {
    const int c = int(i % labels);
    const float *row = from + (i - c) + labels, *column = compat + (list ? list[c + 1] : c);
    float sum = 0.0f;
    for (int l = 0; l < labels; ++l) sum = sum + row[l] * column[int64_t(list ? list[l + 1] : l) * args.labels];
    to[i + labels] = sum;
  }
}

// A step of the mean field in a tile. any: whether images may have more than one channel.
template <bool any>
__device__ void step_of(const Arrays& arrays, const Args& args, int number, TileSums* shared) {
  const Image image(args, arrays.memory, blockIdx.y);
  if (!image.fits()) return;
  bool last = number == args.iterations;
  if (args.kept) {
    const int stopped = *image.stopped();
    if (stopped && stopped < number) return;
    if (stopped) {
      last = true;
      --number;
    }
  }
  const int64_t begin = image.index * args.labels * image.pixels;
  const Step step{image, arrays.unary + begin, arrays.q + begin, number, last, shared, Spot(args.width)};
  const float moved = any && image.width() > 1 ? step.many() : step.two();
  if (step.kept() && step.sliced()) largest_of(__float_as_int(moved), &image.change()[number % 2]);
}

// x: tiles. All images have one channel.
extern "C" __global__ void __launch_bounds__(kTileThreads, 5)
    lidcam_crf_step_two(Arrays arrays, const __grid_constant__ Args args, int number, int) {
  __shared__ TileSums shared;
  step_of<false>(arrays, args, number, &shared);
}

// x: tiles.
extern "C" __global__ void __launch_bounds__(kTileThreads, 4)
    lidcam_crf_step(Arrays arrays, const __grid_constant__ Args args, int number, int) {
  __shared__ TileSums shared;
  step_of<true>(arrays, args, number, &shared);
}

}  // namespace lidcam::crf::cuda
