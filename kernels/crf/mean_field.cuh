// Mean field of a dense CRF, as the bodies of small kernels over the whole grid: what has to be complete before
// something else begins is a kernel of its own. Sums over pixels are sums of integers: they do not depend on the order
// of the threads, and every run gives the same bits.
#pragma once
#include <cstdint>

#include "crf/lattice.cuh"

namespace lidcam::crf::cuda {

constexpr float kUnit = 2097152.0f;        // 2^21, of the weights: a tile has 2^9 pixels, an int holds 2^30
constexpr int kShared = 2 * kTileCorners;  // words: the lists of two terms at least

struct alignas(8) FourPlaces {
  uint16_t v[kPerThread];
};
struct alignas(16) FourFloats {
  float v[kPerThread];
};
// What a tile's vertices hold while it is worked on.
union TileSums {
  float values[kShared];
  int sums[kShared];
};

// The workspace of an image.
struct Image {
  const Args& args;
  unsigned char* memory;
  int64_t index;
  int pixels;
  Place where;

  __device__ Image(const Args& a, unsigned char* m, int64_t i)
      : args(a),
        memory(m),
        index(i),
        pixels(a.height * a.width),
        where(place(tiles(a.height, a.width), a.capacity, a.slots, a.channels)) {}
  __device__ Memory of(int term) const { return Memory(memory + (index * args.terms + term) * where.bytes, where); }
  // Whether every lattice had room for its vertices.
  __device__ bool fits() const {
    bool all = true;
    for (int t = 0; t < args.terms; ++t) all = all && of(t).counts[0] <= args.capacity;
    return all;
  }
  // Labels present, ascending, and how many; all: null.
  __device__ const int* list() const {
    return args.lists < 0 ? nullptr
                          : reinterpret_cast<const int*>(memory + args.words) + args.lists + index * args.list;
  }
  __device__ int labels() const { return args.lists < 0 ? args.labels : list()[0]; }
  __device__ int width() const { return channels(labels(), args.numbers); }
  // Probabilities of the step before, [width, pixels]; null without a tolerance.
  __device__ float* kept() const {
    return args.kept ? reinterpret_cast<float*>(memory + args.kept) + index * args.channels * pixels : nullptr;
  }
  // The bits of the largest change in odd steps and in even ones, as an int of the same order.
  __device__ int* change() const { return of(0).counts + 2; }
  // The iteration before which this image came to rest; 0: it has not.
  __device__ int* stopped() const { return of(0).counts + 4; }
};

// Blurring goes to and fro between two tables, two directions at a time.
__device__ inline int phases(const Term& term) { return (term.dimension + 2) / 2; }

// A term while it is iterated, as a tile sees it. A table has a row per vertex and row 0 for the vertex that does not
// exist, always 0.
struct Field {
  const float* values;       // blurred
  unsigned long long* sums;  // splatted
  const float *weight, *norm;
  const uint16_t* local;
  const int* list;
  int length;           // of the list
  const float* compat;  // vector [labels]; null where it is a number, or a matrix, which has been applied
  int dimension;
  bool before, after;
  float factor, scale, inverse;  // of a message; of the integers

  __device__ Field(const Image& image, int t) {
    const Memory m = image.of(t);
    const Term& term = image.args.term[t];
    const bool flipped = (phases(term) % 2 == 0) != (term.compat == kMatrix);
    values = flipped ? m.second : m.first;
    sums = m.sums;
    weight = m.weight;
    norm = m.norm;
    local = m.local;
    list = m.list + int64_t(blockIdx.x) * kTileCorners;
    length = m.lengths[blockIdx.x];
    compat = term.compat == kVector ? words(image) + term.array : nullptr;
    dimension = term.dimension;
    before = term.before;
    after = term.after;
    factor = term.compat == kNumber ? term.weight * term.alpha : -term.alpha;  // an array holds costs
    scales(m, &scale, &inverse);
  }
  __device__ static const float* words(const Image& image) {
    return reinterpret_cast<const float*>(image.memory + image.args.words);
  }
  // A tile's sum at a vertex stays within 2^30. What is splatted is at most 1, times the norm where that comes before;
  // so a sum is bounded by its weights times the largest norm, whatever compat is.
  __device__ static void scales(const Memory& m, float* scale, float* inverse) {
    const int doublings = 32 - __clz(m.counts[1]);
    *inverse = __uint_as_float(uint32_t(127 - 30 + doublings) << 23);
    *scale = __uint_as_float(uint32_t(127 + 30 - doublings) << 23);
  }
  __device__ FourPlaces places(const Spot& spot, int corner) const {
    return *reinterpret_cast<const FourPlaces*>(local + spot.at(corner));
  }
  __device__ FourFloats weights(const Spot& spot, int corner) const {
    return *reinterpret_cast<const FourFloats*>(weight + spot.at(corner));
  }
  __device__ FourFloats norms(const Spot& spot) const {
    return *reinterpret_cast<const FourFloats*>(norm + int64_t(spot.tile) * kTilePixels + spot.place);
  }
};

// Adds to a tile's sums; equal neighbours at once. An integer sum has no order.
template <class Sum, class Int>
__device__ void add_four(Sum* sums, const FourPlaces& at, const Int* value) {
  Int sum = value[0];
#pragma unroll
  for (int i = 1; i < kPerThread; ++i) {
    if (at.v[i] == at.v[i - 1]) {
      sum += value[i];
      continue;
    }
    atomicAdd(&sums[at.v[i - 1]], Sum(sum));
    sum = value[i];
  }
  atomicAdd(&sums[at.v[kPerThread - 1]], Sum(sum));
}

template <class T>
__device__ void clear(T* shared, int n) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) shared[i] = T(0);
}

// The weights of a tile's pixels, as its sums. All threads of the block call it.
__device__ inline void sum_weights(const Field& f, const Spot& spot, TileSums* shared) {
  clear(shared->sums, f.length);
  __syncthreads();
  for (int k = 0; k <= f.dimension; ++k) {
    const FourFloats weight = f.weights(spot, k);
    int value[kPerThread];
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) value[i] = int(rintf(weight.v[i] * kUnit));
    add_four(shared->sums, f.places(spot, k), value);
  }
  __syncthreads();
}

// The norms of a tile's pixels, from the blurred weights; 0 outside the image. Returns the largest of the thread's. All
// threads of the block call it.
__device__ inline float make_norms(const Field& f, const Memory& m, const Args& args, const Spot& spot,
                                   const float* blurred, float alpha, TileSums* shared) {
  for (int i = threadIdx.x; i < f.length; i += blockDim.x) shared->values[i] = blurred[f.list[i]];
  __syncthreads();
  float sum[kPerThread] = {}, largest = 0.0f;
  for (int k = 0; k <= f.dimension; ++k) {
    const FourPlaces at = f.places(spot, k);
    const FourFloats weight = f.weights(spot, k);
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) sum[i] = sum[i] + weight.v[i] * shared->values[at.v[i]];
  }
  FourFloats result{};
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    if (spot.x + i >= args.width || spot.y >= args.height) continue;
    const float norm = alpha * sum[i] + 1e-20f;
    result.v[i] = 1.0f / (f.before && f.after ? sqrtf(norm) : norm);
    largest = fmaxf(largest, result.v[i]);
  }
  *reinterpret_cast<FourFloats*>(m.norm + int64_t(spot.tile) * kTilePixels + spot.place) = result;
  return largest;
}

// One direction of the blur at a row. near: the rows above and below in that direction, of each vertex.
template <class Read>
__device__ float blurred(const Near* near, int row, Read read) {
  if (row == 0) return 0.0f;
  const Near n = near[row - 1];
  return read(row) + 0.5f * (read(n.up) + read(n.down));
}

// Directions 2 * phase and the next, where the lattice has it. read(row, channel) is what to blur.
template <class Read>
__device__ void blur(const Memory& m, const Args& args, const Term& term, int phase, int vertices, int channels,
                     float* to, int thread, int threads, Read read) {
  const Near *first = m.near + int64_t(2 * phase) * args.capacity, *second = first + args.capacity;
  const bool both = 2 * phase + 1 <= term.dimension;
  const int64_t n = int64_t(vertices) * channels;
  for (int64_t i = thread; i < n; i += threads) {
    const int v = channels == 1 ? int(i) : n >> 32 ? int(i / channels) : int(uint32_t(i) / uint32_t(channels));
    const int c = int(i - int64_t(v) * channels);
    const auto at = [&](int row) { return read(row, c); };
    float value = blurred(first, v + 1, at);
    if (both) {
      const Near n1 = second[v];
      value = value + 0.5f * (blurred(first, n1.up, at) + blurred(first, n1.down, at));
    }
    to[i + channels] = value;
  }
}

// A step of the iteration: marginals from the unary energies and, unless it is the first, the messages; they are
// splatted, or written if it is the last. A block has a tile, and all its threads make all calls.
struct Step {
  const Image& image;
  const float* unary;  // of the image
  float* q;
  int number;  // of the step
  bool last;
  TileSums* shared;
  Spot spot;

  __device__ bool sliced() const { return number > 0; }
  __device__ float* kept() const { return last ? nullptr : image.kept(); }
  __device__ bool inside(int i) const { return spot.x + i < image.args.width && spot.y < image.args.height; }
  __device__ int64_t pixel(int i) const { return int64_t(spot.y) * image.args.width + spot.x + i; }

  // Two labels in one channel.
  __device__ float two() const {
    const int* list = image.list();
    const int64_t first = int64_t(list ? list[1] : 0) * image.pixels,
                  second = int64_t(list ? list[2] : 1) * image.pixels;
    float energy[kPerThread], difference[kPerThread], moved = 0.0f;
#pragma unroll
    for (int i = 0; i < kPerThread; ++i)
      energy[i] = inside(i) ? unary[first + pixel(i)] - unary[second + pixel(i)] : 0.0f;
    for (int t = 0; sliced() && t < image.args.terms;) t = slice(t, 0, 1, energy);
    float* before = kept();
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      const float other = expf(-fabsf(energy[i])), more = 1.0f / (1.0f + other), less = other * more;
      const float one = energy[i] > 0 ? more : less, zero = energy[i] > 0 ? less : more;
      difference[i] = one - zero;
      if (!inside(i)) continue;
      if (last) {
        q[first + pixel(i)] = zero;
        q[second + pixel(i)] = one;
        if (list) leave_out(list, pixel(i));
      }
      if (before) keep(before + pixel(i), one, moved);
    }
    for (int t = 0; !last && t < image.args.terms;) t = splat(t, 0, 1, difference);
    return moved;
  }

  // Any number of labels. What is known of a label so far lies in q.
  __device__ float many() const {
    const int* list = image.list();
    const int labels = image.labels(), terms = image.args.terms;
    float energy[kPerThread], peak[kPerThread], sum[kPerThread] = {}, moved = 0.0f;
    for (int l = 0; l < labels; ++l)
      for (int i = 0; i < kPerThread; ++i)
        if (inside(i)) q[at(list, l, i)] = -unary[at(list, l, i)];
    for (int t = 0, next = t; sliced() && t < terms; t = next)
      for (int l = 0; l < labels; ++l) {
        load(list, l, energy);
        next = slice(t, l, labels, energy);
        store(list, l, energy);
      }
    for (int i = 0; i < kPerThread; ++i) peak[i] = -3.402823466e38f;
    for (int l = 0; l < labels; ++l) {
      load(list, l, energy);
      for (int i = 0; i < kPerThread; ++i) peak[i] = energy[i] > peak[i] ? energy[i] : peak[i];
    }
    for (int l = 0; l < labels; ++l) {
      load(list, l, energy);
      for (int i = 0; i < kPerThread; ++i) {
        energy[i] = expf(energy[i] - peak[i]);
        sum[i] = sum[i] + energy[i];
      }
      store(list, l, energy);
    }
    float* before = kept();
    for (int l = 0; l < labels; ++l) {
      load(list, l, energy);
      for (int i = 0; i < kPerThread; ++i) {
        energy[i] = energy[i] / sum[i];
        if (before && inside(i)) keep(before + int64_t(l) * image.pixels + pixel(i), energy[i], moved);
      }
      store(list, l, energy);
    }
    for (int t = 0, next = t; !last && t < terms; t = next)
      for (int l = 0; l < labels; ++l) {
        load(list, l, energy);
        next = splat(t, l, labels, energy);
      }
    if (list && last)
      for (int i = 0; i < kPerThread; ++i)
        if (inside(i)) leave_out(list, pixel(i));
    return moved;
  }

 private:
  __device__ int64_t at(const int* list, int l, int i) const {
    return int64_t(list ? list[l + 1] : l) * image.pixels + pixel(i);
  }
  __device__ void load(const int* list, int l, float* value) const {
    for (int i = 0; i < kPerThread; ++i) value[i] = inside(i) ? q[at(list, l, i)] : 0.0f;
  }
  __device__ void store(const int* list, int l, const float* value) const {
    for (int i = 0; i < kPerThread; ++i)
      if (inside(i)) q[at(list, l, i)] = value[i];
  }
  // The term after the last of those whose lists fit into shared memory with that of term t.
  __device__ int group(int t) const {
    int words = 0;
    for (; t < image.args.terms; ++t) {
      words += Field(image, t).length;
      if (words > kShared) break;
    }
    return t;
  }

  // Adds the messages of a group of terms in one channel. Returns the term after the group.
  __device__ int slice(int t, int channel, int width, float* energy) const {
    const int begin = t, end = group(t);
    int words = 0;
    for (; t < end; ++t) {
      const Field f(image, t);
      for (int i = threadIdx.x; i < f.length; i += blockDim.x)
        shared->values[words + i] = f.values[int64_t(f.list[i]) * width + channel];
      words += f.length;
    }
    __syncthreads();
    words = 0;
    for (t = begin; t < end; ++t) {
      const Field f(image, t);
      float sum[kPerThread] = {};
#pragma unroll
      for (int k = 0; k < kCorners; ++k) {
        if (k > f.dimension) continue;
        const FourPlaces place = f.places(spot, k);
        const FourFloats weight = f.weights(spot, k);
#pragma unroll
        for (int i = 0; i < kPerThread; ++i) sum[i] = sum[i] + weight.v[i] * shared->values[words + place.v[i]];
      }
      const FourFloats norm = f.after ? f.norms(spot) : FourFloats{{}};
      const int* list = image.list();
      const float factor = f.compat ? f.factor * f.compat[list ? list[channel + 1] : channel] : f.factor;
#pragma unroll
      for (int i = 0; i < kPerThread; ++i) {
        if (f.after) sum[i] = norm.v[i] * sum[i];
        energy[i] = energy[i] + factor * sum[i];
      }
      words += f.length;
    }
    __syncthreads();
    return end;
  }

  // Splats a value per pixel in one channel for a group of terms. Returns the term after the group.
  __device__ int splat(int t, int channel, int width, const float* given) const {
    const int begin = t, end = group(t);
    int words = 0;
    for (; t < end; ++t) words += Field(image, t).length;
    clear(shared->sums, words);
    __syncthreads();
    words = 0;
    for (t = begin; t < end; ++t) {
      const Field f(image, t);
      const FourFloats norm = f.before ? f.norms(spot) : FourFloats{{}};
#pragma unroll
      for (int k = 0; k < kCorners; ++k) {
        if (k > f.dimension) continue;
        const FourFloats weight = f.weights(spot, k);
        int value[kPerThread];
#pragma unroll
        for (int i = 0; i < kPerThread; ++i) {
          const float scaled = (f.before ? given[i] * norm.v[i] : given[i]) * f.scale;
          value[i] = int(rintf(weight.v[i] * scaled));
        }
        add_four(shared->sums + words, f.places(spot, k), value);
      }
      words += f.length;
    }
    __syncthreads();
    words = 0;
    for (t = begin; t < end; ++t) {
      const Field f(image, t);
      for (int i = threadIdx.x; i < f.length; i += blockDim.x)
        if (const int sum = shared->sums[words + i])
          atomicAdd(&f.sums[int64_t(f.list[i]) * width + channel], (unsigned long long)(long long)sum);
      words += f.length;
    }
    __syncthreads();
    return end;
  }

  __device__ void keep(float* at, float now, float& moved) const {
    if (sliced()) moved = fmaxf(moved, fabsf(now - *at));
    *at = now;
  }
  // Labels that are not present have probability 0.
  __device__ void leave_out(const int* list, int64_t p) const {
    for (int l = 0, i = 0; l < image.args.labels; ++l) {
      if (i < list[0] && list[i + 1] == l)
        ++i;
      else
        q[int64_t(l) * image.pixels + p] = 0.0f;
    }
  }
};

}  // namespace lidcam::crf::cuda
