#include "pas/loops.h"

#include <cstdlib>
#include <cstring>

namespace lidcam::pas {
namespace {

const Loops& choose() {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
  // LIDCAM_ISA=base or avx2 keeps to an older instruction set, to test it.
  const char* wish = std::getenv("LIDCAM_ISA");
  const bool base_only = wish && std::strcmp(wish, "base") == 0, avx2_only = wish && std::strcmp(wish, "avx2") == 0;
  __builtin_cpu_init();
  if (!base_only && !avx2_only && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw"))
    return avx512::kLoops;
  if (!base_only && __builtin_cpu_supports("avx2")) return avx2::kLoops;
#endif
  return base::kLoops;
}

}  // namespace

const Loops& loops() {
  static const Loops& chosen = choose();
  return chosen;
}

}  // namespace lidcam::pas
