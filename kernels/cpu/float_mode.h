// What a kernel's floating point arithmetic does, whatever its caller has set.
#pragma once
#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace lidcam::cpu {

enum class Subnormals {
  keep,   // as IEEE 754 says
  flush,  // treated as 0, as operands and as results
};

// While it lives, the thread rounds to nearest, traps nothing and treats subnormal numbers as requested, or has a state
// that was read in another thread or earlier. Then its control register is restored, flags included.
class FloatMode {
 public:
  enum State : unsigned long long {};

  explicit FloatMode(Subnormals subnormals) : before_(state()) {
    set(State(subnormals == Subnormals::flush ? kDefault | kFlush : kDefault));
  }
  explicit FloatMode(State wanted) : before_(state()) { set(wanted); }
  ~FloatMode() { set(before_); }
  FloatMode(const FloatMode&) = delete;
  FloatMode& operator=(const FloatMode&) = delete;

  // Of this thread.
  static State state() {
#if defined(__SSE2__)
    return State(_mm_getcsr());
#elif defined(__aarch64__) && defined(__GNUC__)
    unsigned long long value;
    asm volatile("mrs %0, fpcr" : "=r"(value));
    return State(value);
#else
    return State(0);
#endif
  }

 private:
#if defined(__SSE2__)
  static constexpr unsigned long long kDefault = 0x1F80, kFlush = 0x8040;  // results, and operands
  static void set(State value) { _mm_setcsr(unsigned(value)); }
#elif defined(__aarch64__) && defined(__GNUC__)
  static constexpr unsigned long long kDefault = 0, kFlush = 1ull << 24;
  static void set(State value) { asm volatile("msr fpcr, %0" : : "r"((unsigned long long)(value))); }
#else
  static constexpr unsigned long long kDefault = 0, kFlush = 0;
  static void set(State) {}
#endif
  const State before_;
};

}  // namespace lidcam::cpu
