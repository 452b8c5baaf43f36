// The resize of PaS on the GPU. The resized map is never stored: a sweep walks down the columns and makes each value
// again from four row values held in registers.
#pragma once
#include <cstdint>

#include "pas/pas_args.h"

namespace lidcam::pas::cuda {

constexpr int kColumns = 4;  // that a thread resizes together

// Weights and first source of one output of one axis; source k is clamp(base + k - 1). Linear: outer weights are 0.
struct Tap {
  float weight[4];
  int base;
};

static_assert(sizeof(Tap) == kTapBytes, "pas_args.h");

__host__ __device__ inline int common_divisor(int a, int b) {
  while (b) {
    const int c = a % b;
    a = b;
    b = c;
  }
  return a;
}

// One axis. Outputs `period` apart have equal weights and sources `step` apart: the table holds one period, and only
// these few weights are evaluated in float64.
struct Axis {
  int n_in, n_out, period, step;
  bool linear;
  const Tap* table;

  __device__ Axis(int in, int out, bool is_linear) : n_in(in), n_out(out), linear(is_linear), table(nullptr) {
    const int divisor = common_divisor(in, out);
    period = out / divisor;
    step = in / divisor;
  }
  // A call, not inlined: it is rare, and six sweeps would each hold a copy.
  __device__ __noinline__ Tap make(int i) const {
    const int64_t numerator = (2 * int64_t(i) + 1) * n_in - n_out, denominator = 2 * int64_t(n_out);
    int64_t base = numerator / denominator;
    if (numerator - base * denominator < 0) --base;
    const double t = double(numerator - base * denominator) / double(denominator);
    if (linear) return {{0.0f, float(1.0 - t), float(t), 0.0f}, int(base)};
    const double a = -0.75, u = t + 1.0, v = 1.0 - t, z = 2.0 - t;
    return {{float(((a * u - 5.0 * a) * u + 8.0 * a) * u - 4.0 * a), float(((a + 2.0) * t - (a + 3.0)) * t * t + 1.0),
             float(((a + 2.0) * v - (a + 3.0)) * v * v + 1.0), float(((a * z - 5.0 * a) * z + 8.0 * a) * z - 4.0 * a)},
            int(base)};
  }
  // Output `phase` of the period, moved by `shift` sources.
  __device__ Tap tap(int phase, int shift) const {
    Tap t = table ? table[phase] : make(phase);
    t.base += shift;
    return t;
  }
};

struct Resizer {
  Axis across, down;
  const float* cam;  // [h, w], in shared memory where it fits

  __device__ float row_value(int row, const Tap& t) const {
    const float* in = cam + int64_t(row) * across.n_in;
    const int last = across.n_in - 1;
    float v = in[min(max(t.base - 1, 0), last)] * t.weight[0];
    v = v + in[min(max(t.base, 0), last)] * t.weight[1];
    v = v + in[min(max(t.base + 1, 0), last)] * t.weight[2];
    v = v + in[min(max(t.base + 2, 0), last)] * t.weight[3];
    return v;
  }

  // visit(y, x, n, v): v[0..n) are the values at (y, x..x+n), every value of rows [begin, end) once.
  template <class Visit>
  __device__ void sweep(int begin, int end, Visit visit) const {
    const int groups = (across.n_out + kColumns - 1) / kColumns;
    const int parts = max(1, min(int(blockDim.x) / groups, end - begin));
#pragma unroll 1
    for (int item = threadIdx.x; item < groups * parts; item += blockDim.x) {
      const int part = item / groups, x = (item - part * groups) * kColumns, n = min(kColumns, across.n_out - x);
      int phases[kColumns], shifts[kColumns];
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const int column = min(x + c, across.n_out - 1), turn = column / across.period;
        phases[c] = column - turn * across.period;
        shifts[c] = turn * across.step;
      }
      float rows[4][kColumns] = {};
      int y = begin + int(int64_t(end - begin) * part / parts);
      const int stop = begin + int(int64_t(end - begin) * (part + 1) / parts);
      int turn = y / down.period, phase = y - turn * down.period, held = -8;
#pragma unroll 1
      for (; y < stop; ++y) {
        const Tap t = down.tap(phase, turn * down.step);
        held = max(held, t.base - 4);
#pragma unroll 1
        while (held < t.base) {
          ++held;
          const int row = min(max(held + 2, 0), down.n_in - 1);
#pragma unroll
          for (int c = 0; c < kColumns; ++c) {
            rows[0][c] = rows[1][c];
            rows[1][c] = rows[2][c];
            rows[2][c] = rows[3][c];
            rows[3][c] = row_value(row, across.tap(phases[c], shifts[c]));
          }
        }
        float v[kColumns];
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
          v[c] = rows[0][c] * t.weight[0];
          v[c] = v[c] + rows[1][c] * t.weight[1];
          v[c] = v[c] + rows[2][c] * t.weight[2];
          v[c] = v[c] + rows[3][c] * t.weight[3];
        }
        visit(y, x, n, v);
        if (++phase == down.period) {
          phase = 0;
          ++turn;
        }
      }
    }
  }
};

}  // namespace lidcam::pas::cuda
