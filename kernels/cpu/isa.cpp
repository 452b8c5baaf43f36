#include "cpu/isa.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

namespace lidcam::cpu {
namespace {

constexpr const char* kNames[] = {"baseline", "avx2", "avx512"};

Isa newest() {
#if defined(LIDCAM_X86_KERNELS)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");
  const bool avx512 = avx2 && __builtin_cpu_supports("fma") && __builtin_cpu_supports("popcnt") &&
                      __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return avx512 ? Isa::avx512 : avx2 ? Isa::avx2 : Isa::baseline;
#else
  return Isa::baseline;
#endif
}

bool find(const char* name, Isa* result) {
  const Isa limit = newest();
  if (std::strcmp(name, "auto") == 0) {
    *result = limit;
    return true;
  }
  for (int i = 0; i <= int(limit); ++i)
    if (std::strcmp(name, kNames[i]) == 0) {
      *result = Isa(i);
      return true;
    }
  return false;
}

std::atomic<Isa>& current() {
  static std::atomic<Isa> value = [] {
    Isa result = newest();
    if (const char* name = std::getenv("LIDCAM_ISA")) find(name, &result);
    return result;
  }();
  return value;
}

}  // namespace

Isa isa() { return current().load(std::memory_order_acquire); }

const char* isa_name() { return kNames[int(isa())]; }

bool use_isa(const char* name) {
  Isa result;
  if (!find(name, &result)) return false;
  current().store(result, std::memory_order_release);
  return true;
}

}  // namespace lidcam::cpu
