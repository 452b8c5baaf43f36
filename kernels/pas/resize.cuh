// The resize of PaS on the GPU. The resized map is in no memory: its rows resized along x lie in shared memory, and a
// value is made from four of them, once into registers where a thread's part is small, else whenever it is needed.
#pragma once
#include <cstdint>

#include "pas/pas_args.h"

namespace lidcam::pas::cuda {

static_assert(sizeof(Tap) == kTapBytes, "pas_args.h");

struct alignas(16) Four {
  float v[kColumns];
};

// A call, not inlined: it is rare, and six sweeps would each hold a copy. Of numbers, so that no object needs memory.
static __device__ __noinline__ Tap made_tap(int n_in, int n_out, bool linear, int i) {
  return make_tap(n_in, n_out, linear, i);
}

// One axis. The table holds one period, so that only these few weights are evaluated in float64.
struct Axis {
  int n_in, n_out, period, step;
  bool linear;
  const Tap* table;

  __device__ Axis(int in, int out, bool is_linear) : n_in(in), n_out(out), linear(is_linear), table(nullptr) {
    const int divisor = common_divisor(in, out);
    period = out / divisor;
    step = in / divisor;
  }
  __device__ Tap make(int i) const { return made_tap(n_in, n_out, linear, i); }
  // Output `phase` of the period, moved by `shift` sources.
  __device__ Tap tap(int phase, int shift) const {
    Tap t = table ? table[phase] : make(phase);
    t.base += shift;
    return t;
  }
  // The first source of output i, with nothing evaluated in float64; (2 i + 1) n_in + n_out <= 2^31.
  __device__ int base(int i) const {
    return int(((2u * uint32_t(i) + 1u) * uint32_t(n_in) + uint32_t(n_out)) / (2u * uint32_t(n_out))) - 1;
  }
  __device__ Tap at(int i) const {
    const int turn = i / period;
    return tap(i - turn * period, turn * step);
  }
};

__device__ inline float weighted(float a, float b, float c, float d, const Tap& t) {
  float v = a * t.weight[0];
  v = v + b * t.weight[1];
  v = v + c * t.weight[2];
  v = v + d * t.weight[3];
  return v;
}

struct Resizer {
  Axis across, down;
  const float* cam;  // [h, w], in shared memory where it fits

  __device__ float row_value(int row, const Tap& t) const {
    const float* in = cam + int64_t(row) * across.n_in;
    const int last = across.n_in - 1;
    return weighted(in[min(max(t.base - 1, 0), last)], in[min(max(t.base, 0), last)], in[min(max(t.base + 1, 0), last)],
                    in[min(max(t.base + 2, 0), last)], t);
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
    begin = first + int(int64_t(stop - first) * part / parts);
    end = first + int(int64_t(stop - first) * (part + 1) / parts);
  }
};

__device__ inline int groups_of(int width) { return (width + kColumns - 1) / kColumns; }
__device__ inline int parts_of(int groups, int rows) { return max(1, min(int(blockDim.x) / groups, rows)); }

// Three ways to the values of rows [begin, end): each(visit) calls visit(slot, y, x, n, v), v[0..n) the values at
// (y, x..x+n), every value once and always from the same thread.

// Kept in registers; slot < kKeptRows is known to the compiler. For a width of whole groups of columns.
struct Kept {
  static constexpr bool kSlots = true;
  float v[kKeptRows][kColumns];
  int x, begin, rows;

  __device__ Kept(const Resizer& resizer, const Rows& source, int first, int stop) {
    const int groups = groups_of(resizer.across.n_out), parts = parts_of(groups, stop - first);
    const Item item(threadIdx.x, groups, parts, resizer.across.n_out, first, stop);
    const bool active = int(threadIdx.x) < groups * parts;
    x = item.x;
    begin = item.begin;
    rows = active ? item.end - item.begin : 0;
    const Axis& down = resizer.down;
    const int last = down.n_in - 1;
    int turn = begin / down.period, phase = begin - turn * down.period, held = 0;
    Four a{}, b{}, c{}, d{};
#pragma unroll
    for (int i = 0; i < kKeptRows; ++i) {
      if (i < rows) {
        const Tap t = down.tap(phase, turn * down.step);
        if (i == 0 || t.base != held) {
          held = t.base;
          a = source.four(min(max(held - 1, 0), last), x);
          b = source.four(min(max(held, 0), last), x);
          c = source.four(min(max(held + 1, 0), last), x);
          d = source.four(min(max(held + 2, 0), last), x);
        }
#pragma unroll
        for (int k = 0; k < kColumns; ++k) v[i][k] = weighted(a.v[k], b.v[k], c.v[k], d.v[k], t);
        if (++phase == down.period) {
          phase = 0;
          ++turn;
        }
      }
    }
  }
  template <class Visit>
  __device__ void each(Visit visit) const {
#pragma unroll
    for (int i = 0; i < kKeptRows; ++i)
      if (i < rows) visit(i, begin + i, x, kColumns, v[i]);
  }
};

// Made anew from four row values in registers, which come from get(row, x).
template <class Get>
struct Swept {
  static constexpr bool kSlots = false;
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
      Four rows[4] = {};
      int y = item.begin, turn = y / down.period, phase = y - turn * down.period, held = -8;
#pragma unroll 1
      for (; y < item.end; ++y) {
        const Tap t = down.tap(phase, turn * down.step);
        held = max(held, t.base - 4);
#pragma unroll 1
        while (held < t.base) {
          ++held;
          rows[0] = rows[1];
          rows[1] = rows[2];
          rows[2] = rows[3];
          rows[3] = get(min(max(held + 2, 0), down.n_in - 1), item.x);
        }
        float v[kColumns];
#pragma unroll
        for (int c = 0; c < kColumns; ++c) v[c] = weighted(rows[0].v[c], rows[1].v[c], rows[2].v[c], rows[3].v[c], t);
        visit(0, y, item.x, item.n, v);
        if (++phase == down.period) {
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
};

}  // namespace lidcam::pas::cuda
