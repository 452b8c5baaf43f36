// The resize of PaS on the GPU. The resized map is never stored: its rows resized along x lie in shared memory, and a
// value is made from four of them, once into registers where a thread's part is small, else whenever it is needed.
#pragma once
#include <cstdint>

#include "pas/extremes.cuh"
#include "pas/pas_args.h"

namespace lidcam::pas::cuda {

static_assert(sizeof(Tap) == kTapBytes, "pas_args.h");

struct alignas(16) Four {
  float v[kColumns];
};

// n divided into parts that differ by one at most: where a part begins, and the next.
struct Share {
  int begin, end;

  __device__ Share(int n, int part, int parts) {
    const int each = int(unsigned(n) / unsigned(parts)), rest = n - each * parts;
    begin = part * each + min(part, rest);
    end = begin + each + (part < rest);
  }
};

// A call, not inlined: it is rare, and six sweeps would each hold a copy. Of numbers, so that no object needs memory.
static __device__ __noinline__ Tap made_tap(int n_in, int n_out, bool linear, int i) {
  return make_tap(n_in, n_out, linear, i);
}

// The weights of outputs and their first sources, as they lie in shared memory.
struct Table {
  Four* weights;
  int* bases;

  __device__ void set(int i, const Tap& t) const {
    weights[i] = {{t.weight[0], t.weight[1], t.weight[2], t.weight[3]}};
    bases[i] = t.base;
  }
};

// One axis. The table holds one period, so that only these few weights are evaluated in float64.
struct Axis {
  int n_in, n_out, period, step;
  bool linear;
  Table table;

  __device__ Axis(int in, int out, const Period& p, bool is_linear)
      : n_in(in), n_out(out), period(p.outputs), step(p.sources), linear(is_linear), table{} {}
  __device__ Tap make(int i) const { return made_tap(n_in, n_out, linear, i); }
  // Output `phase` of the period, moved by `shift` sources.
  __device__ Tap tap(int phase, int shift) const {
    if (!table.weights) {
      Tap t = make(phase);
      t.base += shift;
      return t;
    }
    const Four w = table.weights[phase];
    return {{w.v[0], w.v[1], w.v[2], w.v[3]}, table.bases[phase] + shift};
  }
  // The first source of output i, with nothing evaluated in float64; (2 i + 1) n_in + n_out <= 2^31.
  __device__ int base(int i) const {
    return int(((2u * uint32_t(i) + 1u) * uint32_t(n_in) + uint32_t(n_out)) / (2u * uint32_t(n_out))) - 1;
  }
  __device__ Tap at(int i) const {
    const int turn = i / period;
    return tap(i - turn * period, turn * step);
  }
  // The parts of tap(phase, turn * step).
  __device__ Four weights(int phase) const {
    if (table.weights) return table.weights[phase];
    const Tap t = make(phase);
    return {{t.weight[0], t.weight[1], t.weight[2], t.weight[3]}};
  }
  __device__ int first_source(int phase, int turn) const {
    return (table.weights ? table.bases[phase] : base(phase)) + turn * step;
  }
  // The first output after i whose first source is another than i's, `from`. Where outputs are fewer than sources,
  // each has one of its own.
  __device__ int end_of_run(int i, int from) const {
    if (n_out < n_in) return i + 1;
    const uint32_t sources = 2u * uint32_t(n_in);
    return int((uint32_t(2 * from + 3) * uint32_t(n_out) - uint32_t(n_in) + sources - 1) / sources);
  }
};

__device__ inline float weighted(float a, float b, float c, float d, const float* weight) {
  float v = a * weight[0];
  v = v + b * weight[1];
  v = v + c * weight[2];
  v = v + d * weight[3];
  return v;
}

struct Resizer {
  Axis across, down;
  const float* cam;  // [h, w], in shared memory where it fits

  __device__ float row_value(int row, const Tap& t) const {
    const float* in = cam + int64_t(row) * across.n_in;
    const int last = across.n_in - 1;
    return weighted(in[min(max(t.base - 1, 0), last)], in[min(max(t.base, 0), last)], in[min(max(t.base + 1, 0), last)],
                    in[min(max(t.base + 2, 0), last)], t.weight);
  }
};

// The rows [first, first + count) of the activation map that output rows [begin, end) need, resized along x.
struct Rows {
  float* data;
  int first, count, stride;

  __device__ Rows(const Axis& down, int begin, int end, int width) : data(nullptr), stride((width + 3) / 4 * 4) {
    const int last = down.n_in - 1;
    first = min(max(down.base(begin) - 1, 0), last);
    count = end > begin ? min(max(down.base(end - 1) + 2, 0), last) - first + 1 : 0;
  }
  // Columns past the edge repeat the last.
  __device__ void fill(const Resizer& resizer) const {
    const int parts = max(1, min(int(blockDim.x) / stride, count));
#pragma unroll 1
    for (int item = threadIdx.x; item < stride * parts; item += blockDim.x) {
      const int part = item / stride, x = item - part * stride;
      const Tap t = resizer.across.at(min(x, resizer.across.n_out - 1));
#pragma unroll 4
      for (int row = part; row < count; row += parts) data[row * stride + x] = resizer.row_value(first + row, t);
    }
  }
  __device__ const Four& four(int row, int x) const {
    return *reinterpret_cast<const Four*>(data + (row - first) * stride + x);
  }
};

// A thread's rows of kColumns columns.
struct Item {
  int x, n, begin, end;

  __device__ Item(int item, int groups, int parts, int width, int first, int stop) {
    const int part = item / groups;
    x = (item - part * groups) * kColumns;
    n = min(kColumns, width - x);
    const Share share(stop - first, part, parts);
    begin = first + share.begin;
    end = first + share.end;
  }
};

__device__ inline int groups_of(int width) { return (width + kColumns - 1) / kColumns; }
__device__ inline int parts_of(int groups, int rows) { return max(1, min(int(blockDim.x) / groups, rows)); }

// Two ways to the values of rows [begin, end): each(visit) calls visit(y, x, n, v), v[0..n) the values at (y, x..x+n),
// every value once and always from the same thread; v[n..) repeats the last.

// Made anew from four row values in registers, which come from get(row, x). kUnroll: rows at once.
template <class Get, int kUnroll>
struct Swept {
  const Resizer& resizer;
  int first, stop;
  Get get;

  template <class Visit>
  __device__ void each(Visit visit) const {
    const Axis& down = resizer.down;
    const int groups = groups_of(resizer.across.n_out), parts = parts_of(groups, stop - first);
#pragma unroll 1
    for (int number = threadIdx.x; number < groups * parts; number += blockDim.x) {
      const Item item(number, groups, parts, resizer.across.n_out, first, stop);
      Four four[4] = {};
      int y = item.begin, turn = y / down.period, phase = y - turn * down.period, held = -8;
#pragma unroll 1
      while (y < item.end) {
        const int base = down.first_source(phase, turn);
        held = max(held, base - 4);
#pragma unroll 1
        while (held < base) {
          ++held;
          four[0] = four[1];
          four[1] = four[2];
          four[2] = four[3];
          four[3] = get(min(max(held + 2, 0), down.n_in - 1), item.x);
        }
        // Rows between the same four sources, as far as the weights of one period reach.
        const int rows = min(min(down.end_of_run(y, base), item.end) - y, down.period - phase);
#pragma unroll kUnroll
        for (int i = 0; i < rows; ++i) {
          const Four w = get.weights(down, phase + i);
          float v[kColumns];
#pragma unroll
          for (int c = 0; c < kColumns; ++c)
            v[c] = weighted(four[0].v[c], four[1].v[c], four[2].v[c], four[3].v[c], w.v);
          visit(y + i, item.x, item.n, v);
        }
        y += rows;
        phase += rows;
        if (phase == down.period) {
          phase = 0;
          ++turn;
        }
      }
    }
  }
};

struct FromRows {
  Rows rows;
  __device__ Four operator()(int row, int x) const { return rows.four(row, x); }
  __device__ Four weights(const Axis& down, int phase) const { return down.table.weights[phase]; }
};

// Where the rows do not fit into shared memory: from the activation map itself.
struct FromMap {
  const Resizer& resizer;
  __device__ Four operator()(int row, int x) const {
    Four v;
#pragma unroll
    for (int c = 0; c < kColumns; ++c)
      v.v[c] = resizer.row_value(row, resizer.across.at(min(x + c, resizer.across.n_out - 1)));
    return v;
  }
  __device__ Four weights(const Axis& down, int phase) const { return down.weights(phase); }
};

}  // namespace lidcam::pas::cuda
