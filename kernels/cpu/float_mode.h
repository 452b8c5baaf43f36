// What a kernel's floating point arithmetic does, whatever its caller has set.
#pragma once
#include <cstdint>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace lidcam::cpu {

enum class Subnormals {
  keep,   // as IEEE 754 says
  flush,  // taken for 0 as operands and as results
};

// While it lives, the thread rounds to nearest, traps nothing and treats subnormal numbers as asked. Then its control
// register is as it was, flags included.
class FloatMode {
 public:
#if defined(__SSE2__)
  explicit FloatMode(Subnormals subnormals) : before_(_mm_getcsr()) {
    constexpr unsigned kMasked = 0x1F80, kFlushOperands = 0x0040, kFlushResults = 0x8000;
    _mm_setcsr(kMasked | (subnormals == Subnormals::flush ? kFlushOperands | kFlushResults : 0));
  }
  ~FloatMode() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#elif defined(__aarch64__) && defined(__GNUC__)
  explicit FloatMode(Subnormals subnormals) {
    constexpr uint64_t kFlush = uint64_t(1) << 24;
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    asm volatile("msr fpcr, %0" : : "r"(subnormals == Subnormals::flush ? kFlush : uint64_t(0)));
  }
  ~FloatMode() { asm volatile("msr fpcr, %0" : : "r"(before_)); }

 private:
  uint64_t before_;
#else
  explicit FloatMode(Subnormals) {}

 public:
#endif
  FloatMode(const FloatMode&) = delete;
  FloatMode& operator=(const FloatMode&) = delete;
};

}  // namespace lidcam::cpu
