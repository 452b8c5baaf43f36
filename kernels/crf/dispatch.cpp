// Which instruction set's kernels run.
#include <atomic>
#include <cstdlib>
#include <cstring>

#include "crf/kernels.h"

namespace lidcam::crf {
namespace {

const Kernels* named(const char* name) {
#if defined(LIDCAM_CRF_X86)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("fma");
  const bool any = std::strcmp(name, "auto") == 0;
  if (avx512 && (any || std::strcmp(name, "avx512") == 0)) return &kAvx512;
  if (avx2 && (any || std::strcmp(name, "avx2") == 0)) return &kAvx2;
  if (any) return &kBaseline;
#else
  if (std::strcmp(name, "auto") == 0) return &kBaseline;
#endif
  return std::strcmp(name, "baseline") == 0 ? &kBaseline : nullptr;
}

std::atomic<const Kernels*>& current() {
  static std::atomic<const Kernels*> kernels = [] {
    const char* wish = std::getenv("LIDCAM_CRF_ISA");
    const Kernels* found = wish ? named(wish) : nullptr;
    return found ? found : named("auto");
  }();
  return kernels;
}

}  // namespace

const Kernels& kernels() { return *current().load(std::memory_order_acquire); }

bool use_kernels(const char* name) {
  const Kernels* found = named(name);
  if (found) current().store(found, std::memory_order_release);
  return found != nullptr;
}

}  // namespace lidcam::crf
