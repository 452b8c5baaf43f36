// Mean field of a dense CRF, all iterations in one launch, a block or a cluster per image. Sums over pixels are sums of
// integers: they do not depend on the order of the threads, and every run gives the same bits. The tables of a term lie
// in shared memory where a block has the image and they fit.
#pragma once
#include <cstdint>

#include "crf/lattice.cuh"
#include "cuda/team.cuh"

namespace lidcam::crf::cuda {

using lidcam::cuda::Block;
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
using lidcam::cuda::Cluster;
#endif

constexpr float kWide = 4294967296.0f;  // of the sums of 64 bits that the set-up makes

// One term while it is iterated. A table has `vertices` + 1 rows. Splatting adds integers to `fixed`; blurring goes to
// and fro between both tables; the last lies in `values` and the other becomes `fixed`.
struct Field {
  float *values, *fixed;
  const int *neighbor, *row;
  const float *weight, *norm;
  const float* compat;  // vector [labels] or symmetric matrix [labels, labels]; null where it is a number
  int vertices, dimension;
  bool matrix, before, after;
  float factor, scale, inverse;  // of a message; of the integers
};

template <class Team>
struct MeanField {
  const Team& team;
  const Args& args;
  const float* unary;
  float* q;
  float* kept;         // probabilities of the step before, [width, pixels]; null without a tolerance
  int* change;         // of odd steps and of even ones: the bits of the largest, as an int of the same order
  const int* present;  // labels, ascending; null where all are
  int labels;          // as many
  int pixels, width;   // width: channels
  int thread, threads;
  Field field[kMaxTerms];

  __device__ int label(int i) const { return present ? present[i] : i; }

  // The message of a term to pixel p in one channel.
  __device__ float slice(const Field& f, int p, int channel) const {
    float sum = 0.0f;
    for (int k = 0; k <= f.dimension; ++k) {
      const int64_t at = int64_t(k) * pixels + p;
      sum = sum + f.weight[at] * f.values[int64_t(f.row[at]) * width + channel];
    }
    if (f.after) sum = f.norm[p] * sum;
    return (f.compat && !f.matrix ? f.factor * f.compat[label(channel)] : f.factor) * sum;
  }
  __device__ void splat(const Field& f, int p, int channel, float value) const {
    const float scaled = (f.before ? value * f.norm[p] : value) * f.scale;
    int* table = reinterpret_cast<int*>(f.fixed);
    for (int k = 0; k <= f.dimension; ++k) {
      const int64_t at = int64_t(k) * pixels + p;
      atomicAdd(&table[int64_t(f.row[at]) * width + channel], int(rintf(f.weight[at] * scaled)));
    }
  }

  // Marginals of all pixels from the unary energies and, after step 0, the messages; splat them, or write them.
  __device__ void step(int number, bool last) const {
    const bool sliced = number > 0, keep = kept && !last;
    float moved = 0.0f;
    for (int p = thread; p < pixels; p += threads) {
      if (present && last) leave_out(p);
      if (width == 1) {
        const int64_t first = int64_t(label(0)) * pixels + p, second = int64_t(label(1)) * pixels + p;
        float energy = unary[first] - unary[second];
        for (int t = 0; sliced && t < args.terms; ++t) energy = energy + slice(field[t], p, 0);
        const float other = expf(-fabsf(energy)), more = 1.0f / (1.0f + other), less = other * more;
        const float one = energy > 0 ? more : less, zero = energy > 0 ? less : more;
        if (last) {
          q[first] = zero;
          q[second] = one;
        } else {
          for (int t = 0; t < args.terms; ++t) splat(field[t], p, 0, one - zero);
        }
        if (keep) keep_one(p, one, sliced, moved);
        continue;
      }
      float peak = -3.402823466e38f, sum = 0.0f;
      for (int l = 0; l < labels; ++l) {
        const int64_t at = int64_t(label(l)) * pixels + p;
        float energy = -unary[at];
        for (int t = 0; sliced && t < args.terms; ++t) energy = energy + slice(field[t], p, l);
        q[at] = energy;
        peak = energy > peak ? energy : peak;
      }
      for (int l = 0; l < labels; ++l) {
        const int64_t at = int64_t(label(l)) * pixels + p;
        const float e = expf(q[at] - peak);
        q[at] = e;
        sum = sum + e;
      }
      for (int l = 0; l < labels; ++l) {
        const int64_t at = int64_t(label(l)) * pixels + p;
        const float share = q[at] / sum;
        if (last)
          q[at] = share;
        else
          for (int t = 0; t < args.terms; ++t) splat(field[t], p, l, share);
        if (keep) keep_one(int64_t(l) * pixels + p, share, sliced, moved);
      }
    }
    if (!keep || !sliced) return;
    int largest = __float_as_int(moved);
    for (int lanes = 16; lanes > 0; lanes /= 2) largest = max(largest, __shfl_xor_sync(0xffffffffu, largest, lanes));
    if (threadIdx.x % 32 == 0) atomicMax(&change[number % 2], largest);
  }
  __device__ void keep_one(int64_t at, float now, bool compare, float& moved) const {
    if (compare) moved = fmaxf(moved, fabsf(now - kept[at]));
    kept[at] = now;
  }
  // Labels that are not present have probability 0.
  __device__ void leave_out(int p) const {
    for (int l = 0, i = 0; l < args.labels; ++l) {
      if (i < labels && present[i] == l)
        ++i;
      else
        q[int64_t(l) * pixels + p] = 0.0f;
    }
  }

  // The directions of the blur. read(row, channel) gives what was splatted.
  template <class Read>
  __device__ void blur_direction(Field& f, int j, int channels, Read read) const {
    const int64_t n = int64_t(f.vertices) * channels;
    const int *up = f.neighbor + int64_t(2 * j) * args.capacity, *down = up + args.capacity;
    const float* from = j % 2 ? f.values : f.fixed;
    float* to = j % 2 ? f.fixed : f.values;
    for (int64_t i = thread; i < n; i += threads) {
      const int v = int(i / channels), c = int(i - int64_t(v) * channels), a = up[v], b = down[v];
      float result;
      if (j == 0)
        result = read(v + 1, c) + 0.5f * (read(a, c) + read(b, c));
      else
        result = from[i + channels] + 0.5f * (from[int64_t(a) * channels + c] + from[int64_t(b) * channels + c]);
      to[i + channels] = result;
    }
    // Row 0 of the table that the next direction reads.
    for (int c = thread; c < channels; c += threads) to[c] = 0.0f;
  }
  __device__ void turn(Field& f) const {  // the last direction wrote into `fixed` where their number is even
    if (f.dimension % 2) swap(f);
  }
  __device__ void swap(Field& f) const {
    float* other = f.values;
    f.values = f.fixed;
    f.fixed = other;
  }
  __device__ void clear_fixed() const {
    for (int t = 0; t < args.terms; ++t) {
      const int64_t n = (int64_t(field[t].vertices) + 1) * width;
      for (int64_t i = thread; i < n; i += threads) field[t].fixed[i] = 0.0f;
    }
  }
  __device__ void blur() {
    for (int j = 0; j < kCorners; ++j) {
      for (int t = 0; t < args.terms; ++t) {
        Field& f = field[t];
        if (j > f.dimension) continue;
        const int* table = reinterpret_cast<const int*>(f.fixed);
        blur_direction(f, j, width, [&](int row, int c) { return float(table[int64_t(row) * width + c]) * f.inverse; });
      }
      team.sync();
    }
    bool any = false;
    for (int t = 0; t < args.terms; ++t) {
      turn(field[t]);
      any = any || field[t].matrix;
    }
    if (any) mix();
    clear_fixed();
    team.sync();
  }
  // A matrix acts on the vertices: it commutes with slicing, and there are fewer vertices than pixels.
  __device__ void mix() {
    for (int t = 0; t < args.terms; ++t) {
      const Field& f = field[t];
      const int64_t n = f.matrix ? int64_t(f.vertices) * width : 0;
      for (int64_t i = thread; i < n; i += threads) {
        const int c = int(i % width);
        const float *row = f.values + (i - c) + width, *column = f.compat + label(c);
        float sum = 0.0f;
        for (int l = 0; l < labels; ++l) sum = sum + row[l] * column[int64_t(label(l)) * args.labels];
        f.fixed[i + width] = sum;
      }
    }
    team.sync();
    for (int t = 0; t < args.terms; ++t)
      if (field[t].matrix) swap(field[t]);
  }

  // The norms, and the scale of the integers: no vertex may sum up to more than 2^30. What is splatted is at most 1,
  // times the norm where that comes before; so a vertex is bounded by its weights times that, whatever compat is.
  __device__ void prepare(const Memory* memory) {
    for (int t = 0; t < args.terms; ++t)
      for (int64_t i = thread; i <= field[t].vertices; i += threads) memory[t].wide[i] = 0;
    team.sync();
    for (int t = 0; t < args.terms; ++t)
      if (normalised(field[t])) splat_wide(field[t], memory[t], false);
    team.sync();
    for (int j = 0; j < kCorners; ++j) {
      for (int t = 0; t < args.terms; ++t) {
        Field& f = field[t];
        const long long* table = reinterpret_cast<const long long*>(memory[t].wide);
        if (j <= f.dimension && normalised(f))
          blur_direction(f, j, 1, [&](int row, int) { return float(table[row]) * (1.0f / kWide); });
      }
      team.sync();
    }
    for (int t = 0; t < args.terms; ++t) {
      Field& f = field[t];
      if (!normalised(f)) continue;
      turn(f);
      for (int p = thread; p < pixels; p += threads) {
        float sum = 0.0f;
        for (int k = 0; k <= f.dimension; ++k) {
          const int64_t at = int64_t(k) * pixels + p;
          sum = sum + f.weight[at] * f.values[f.row[at]];
        }
        const float norm = args.term[t].alpha * sum + 1e-20f;
        memory[t].norm[p] = 1.0f / (f.before && f.after ? sqrtf(norm) : norm);
      }
      for (int64_t i = thread; i <= f.vertices; i += threads) memory[t].wide[i] = 0;
    }
    team.sync();
    for (int t = 0; t < args.terms; ++t) splat_wide(field[t], memory[t], true);
    team.sync();
    for (int t = 0; t < args.terms; ++t)
      for (int64_t i = thread; i <= field[t].vertices; i += threads)
        atomicMax(&memory[t].counts[1], int(memory[t].wide[i] >> 32) + 1);
    clear_fixed();
    team.sync();
    for (int t = 0; t < args.terms; ++t) {
      Field& f = field[t];
      f.inverse = 1.0f / 1073741824.0f;
      for (int weight = memory[t].counts[1]; weight > 0; weight /= 2) f.inverse = 2.0f * f.inverse;
      f.scale = 1.0f / f.inverse;
    }
  }
  __device__ static bool normalised(const Field& f) { return f.before || f.after; }
  __device__ void splat_wide(const Field& f, const Memory& m, bool bound) const {
    for (int p = thread; p < pixels; p += threads)
      for (int k = 0; k <= f.dimension; ++k) {
        const int64_t at = int64_t(k) * pixels + p;
        const float weight = bound ? fabsf(f.weight[at]) : f.weight[at];
        const float value = bound && f.before ? weight * f.norm[p] : weight;
        atomicAdd(&m.wide[f.row[at]], (unsigned long long)(long long)rintf(value * kWide));
      }
  }
};

// One image. compat: the arrays of all terms. present: null, or how many labels are and which. kept: null without a
// tolerance. status: 0, or 1 where a lattice has more vertices than there is room for; then q is not written.
template <class Team>
__device__ void mean_field(const Team& team, const Args& args, const float* unary, unsigned char* memory,
                           const float* compat, const int* present, float* kept, float* q, int* status,
                           unsigned char* shared) {
  const int pixels = args.height * args.width, labels = present ? present[0] : args.labels;
  const Place where = place(pixels, args.capacity, args.slots, args.channels);
  Memory memories[kMaxTerms] = {{memory, where},
                                {memory + where.bytes, where},
                                {memory + 2 * where.bytes, where},
                                {memory + 3 * where.bytes, where}};
  MeanField<Team> m{team,
                    args,
                    unary,
                    q,
                    kept,
                    memories[0].counts + 2,
                    present ? present + 1 : nullptr,
                    labels,
                    pixels,
                    channels(labels, args.numbers),
                    int(team.rank() * blockDim.x + threadIdx.x),
                    int(team.size() * blockDim.x),
                    {}};
  bool fits = true;
  int64_t left = team.size() == 1 ? args.shared_bytes : 0;
  for (int t = 0; t < args.terms; ++t) {
    const Memory& in = memories[t];
    const Term& term = args.term[t];
    const int vertices = in.counts[0];
    fits = fits && vertices <= args.capacity;
    const int64_t bytes = 4 * (int64_t(vertices) + 1) * m.width;
    const bool near = fits && 2 * bytes <= left;
    m.field[t] = {near ? reinterpret_cast<float*>(shared) : in.first,
                  near ? reinterpret_cast<float*>(shared + bytes) : in.second,
                  in.neighbor,
                  in.row,
                  in.weight,
                  in.norm,
                  term.compat == kNumber ? nullptr : compat + term.array,
                  vertices,
                  term.dimension,
                  term.compat == kMatrix,
                  term.before != 0,
                  term.after != 0,
                  term.compat == kNumber ? term.weight * term.alpha : -term.alpha,  // an array holds costs
                  1.0f,
                  1.0f};
    if (near) {
      shared += 2 * bytes;
      left -= 2 * bytes;
    }
  }
  if (m.thread == 0) *status = !fits;
  if (!fits) return;
  if (args.iterations > 0) m.prepare(memories);
  m.step(0, args.iterations == 0);
  for (int i = 1; i <= args.iterations; ++i) {
    team.sync();
    // With a tolerance the last step is known only now; its messages are still there, so it is done again.
    if (kept && i > 1 && __int_as_float(m.change[(i - 1) % 2]) <= args.tolerance) {
      m.step(i - 1, true);
      return;
    }
    if (kept && m.thread == 0) m.change[i % 2] = 0;
    m.blur();
    m.step(i, i == args.iterations);
  }
}

}  // namespace lidcam::crf::cuda
