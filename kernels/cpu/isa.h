// Instruction sets: which one this process uses, and how kernels are compiled once for each.
#pragma once

namespace lidcam::cpu {

enum class Isa { baseline, avx2, avx512 };

// The set in use. At first it is the one that the environment variable LIDCAM_ISA names (baseline, avx2 or avx512), or
// the newest that this processor has where the variable is empty or names one that is not available.
Isa isa();
const char* isa_name();
// Changes it, for tests: one of the names above, or "auto" for the newest. False if it is not available.
bool use_isa(const char* name);

}  // namespace lidcam::cpu

// Inlined always: sources that are compiled once per instruction set use such functions, and the linker must not keep
// the copy of a newer set for all of them. For the same reason these sources use nothing of the C++ library.
#define LIDCAM_INLINE __attribute__((always_inline)) inline

// LIDCAM_KERNEL_TABLE(Loops, loops) declares a constant kLoops in the namespaces baseline, avx2 and avx512, and
// loops(), the one of the set in use. The source that defines kLoops is compiled once per set (lidcam_per_isa in
// CMakeLists.txt), each time with that set's name as LIDCAM_TARGET.
#if defined(LIDCAM_X86_KERNELS)
#define LIDCAM_KERNEL_TABLE(Type, function)                    \
  namespace baseline {                                         \
  extern const Type k##Type;                                   \
  }                                                            \
  namespace avx2 {                                             \
  extern const Type k##Type;                                   \
  }                                                            \
  namespace avx512 {                                           \
  extern const Type k##Type;                                   \
  }                                                            \
  LIDCAM_INLINE const Type& function() {                       \
    switch (::lidcam::cpu::isa()) {                            \
      case ::lidcam::cpu::Isa::avx512: return avx512::k##Type; \
      case ::lidcam::cpu::Isa::avx2: return avx2::k##Type;     \
      default: return baseline::k##Type;                       \
    }                                                          \
  }
#else
#define LIDCAM_KERNEL_TABLE(Type, function) \
  namespace baseline {                      \
  extern const Type k##Type;                \
  }                                         \
  LIDCAM_INLINE const Type& function() { return baseline::k##Type; }
#endif
