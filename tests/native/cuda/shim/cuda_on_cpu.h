// The part of CUDA C++ that our kernels use, for a C++ compiler: give it with -include before a .cu file.
#pragma once
#include <cmath>
#include <type_traits>

#include "shim/fibers.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __cluster_dims__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ thread_local
#define __restrict__ __restrict

#define threadIdx (::lidcam::shim::self().thread)
#define blockIdx (::lidcam::shim::self().block->index)
#define blockDim (::lidcam::shim::self().block->threads)
#define gridDim (::lidcam::shim::self().block->grid)

inline void __syncthreads() { lidcam::shim::meet(0, false); }
inline int __syncthreads_or(int v) { return int(lidcam::shim::meet(1, v != 0)); }
inline int __syncthreads_and(int v) { return int(lidcam::shim::meet(2, v != 0)); }
inline int __syncthreads_count(int v) { return int(lidcam::shim::meet(3, v != 0)); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { lidcam::shim::exchange(mask, 0); }

namespace lidcam::shim {

template <class T>
uint64_t to_bits(T v) {
  static_assert(std::is_trivially_copyable<T>::value && sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &v, sizeof v);
  return bits;
}

template <class T>
T from_bits(uint64_t bits) {
  T v;
  std::memcpy(&v, &bits, sizeof v);
  return v;
}

template <class T>
T shuffle(unsigned mask, T v, int source) {
  const unsigned lane = self().number % 32;
  const uint64_t* all = exchange(mask, to_bits(v));
  if (source < 0 || source > 31) source = int(lane);
  if (!(mask >> source & 1)) fail("a lane shuffles from one that its mask does not name");
  return from_bits<T>(all[source]);
}

template <class T, class F>
T update(T* p, F change) {
  maybe_yield();
  const T old = *p;
  *p = change(old);
  return old;
}

}  // namespace lidcam::shim

template <class T>
T __shfl_sync(unsigned mask, T v, int source) {
  return lidcam::shim::shuffle(mask, v, source & 31);
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, unsigned delta) {
  return lidcam::shim::shuffle(mask, v, int(lidcam::shim::self().number % 32) - int(delta));
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned delta) {
  return lidcam::shim::shuffle(mask, v, int(lidcam::shim::self().number % 32) + int(delta));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int lanes) {
  return lidcam::shim::shuffle(mask, v, int(lidcam::shim::self().number % 32) ^ lanes);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const uint64_t* all = lidcam::shim::exchange(mask, predicate != 0);
  unsigned bits = 0;
  for (unsigned lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1 && all[lane]) bits |= 1u << lane;
  return bits;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }

template <class T>
T atomicAdd(T* p, T v) {
  return lidcam::shim::update(p, [v](T old) { return T(old + v); });
}
template <class T>
T atomicMin(T* p, T v) {
  return lidcam::shim::update(p, [v](T old) { return v < old ? v : old; });
}
template <class T>
T atomicMax(T* p, T v) {
  return lidcam::shim::update(p, [v](T old) { return v > old ? v : old; });
}
template <class T>
T atomicOr(T* p, T v) {
  return lidcam::shim::update(p, [v](T old) { return T(old | v); });
}
template <class T>
T atomicExch(T* p, T v) {
  return lidcam::shim::update(p, [v](T) { return v; });
}
template <class T>
T atomicCAS(T* p, T expected, T v) {
  return lidcam::shim::update(p, [expected, v](T old) { return old == expected ? v : old; });
}
inline void __cluster_barrier_arrive_relaxed() { lidcam::shim::arrive_at_cluster(); }
inline void __cluster_barrier_wait() { lidcam::shim::wait_for_cluster(); }
inline void __threadfence() {}
inline void __threadfence_block() {}

// Rounded towards zero, by the error of the rounded sum.
inline float __fadd_rz(float a, float b) {
  const float sum = a + b;
  const double error = (double(a) + double(b)) - double(sum);  // exact for the sums that the kernels take
  return error != 0 && (error < 0) == (sum > 0) ? std::nextafter(sum, 0.0f) : sum;
}
inline unsigned __float_as_uint(float v) { return unsigned(lidcam::shim::to_bits(v)); }
inline float __uint_as_float(unsigned v) { return lidcam::shim::from_bits<float>(v); }
inline int __float_as_int(float v) { return int(lidcam::shim::to_bits(v)); }
inline float __int_as_float(int v) { return lidcam::shim::from_bits<float>(unsigned(v)); }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __clz(int v) { return v ? __builtin_clz(unsigned(v)) : 32; }
inline int __ffs(int v) { return __builtin_ffs(v); }

template <class T>
T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
T max(T a, T b) {
  return a < b ? b : a;
}
