#include "cpu/memory.h"

#include <cstdlib>
#include <mutex>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace lidcam::cpu {
namespace {

constexpr size_t kHuge = size_t(2) << 20;
constexpr size_t kBlocks = 64, kBytes = size_t(256) << 20;
constexpr size_t kSmall = size_t(32) << 10;  // up to this size, blocks are left to malloc

struct Block {
  void* block;
  size_t bytes;
};

struct Pool {
  std::mutex mutex;
  Block free[kBlocks];
  size_t count = 0, held = 0;
};

Pool& pool() {
  static Pool* instance = new Pool;  // never destroyed: arrays may outlive the module's statics
  return *instance;
}

// Sizes of one class share blocks: pictures of nearly one size reuse each other's.
size_t round_up(size_t bytes) {
  size_t step = 4096;
  while (step * 16 < bytes) step *= 2;
  if (bytes >= kHuge / 8 && step < kHuge) step = kHuge;
  return (bytes + step - 1) / step * step;
}

}  // namespace

#if defined(__SANITIZE_ADDRESS__)

// Blocks as large as requested and never handed out again, so that the sanitizer sees each access beyond one.
void* take_block(size_t bytes, size_t* granted) {
  *granted = bytes;
  void* block = nullptr;
  if (posix_memalign(&block, 64, bytes == 0 ? 1 : bytes) != 0) throw std::bad_alloc();
  return block;
}

void give_block(void* block, size_t) noexcept { std::free(block); }

#else

void* take_block(size_t bytes, size_t* granted) {
  const size_t size = round_up(bytes == 0 ? 1 : bytes);
  if (size < bytes) throw std::bad_alloc();
  *granted = size;
  if (size > kSmall) {
    Pool& p = pool();
    std::lock_guard<std::mutex> guard(p.mutex);
    for (size_t i = p.count; i-- > 0;)
      if (p.free[i].bytes == size) {
        void* block = p.free[i].block;
        p.held -= size;
        for (size_t j = i + 1; j < p.count; ++j) p.free[j - 1] = p.free[j];
        --p.count;
        return block;
      }
  }
  void* block = nullptr;
  const size_t alignment = size >= kHuge ? kHuge : 64;
  if (posix_memalign(&block, alignment, size) != 0) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
  if (alignment == kHuge) madvise(block, size, MADV_HUGEPAGE);
#endif
  return block;
}

void give_block(void* block, size_t granted) noexcept {
  if (granted <= kSmall) return std::free(block);
  Pool& p = pool();
  void* dropped[kBlocks];
  size_t drops = 0;
  {
    std::lock_guard<std::mutex> guard(p.mutex);
    if (granted > kBytes) {
      dropped[drops++] = block;
    } else {
      // The oldest make room, so that the sizes in use now stay.
      size_t first = 0, held = p.held;
      while (first < p.count && (held + granted > kBytes || p.count - first >= kBlocks)) {
        held -= p.free[first].bytes;
        dropped[drops++] = p.free[first++].block;
      }
      for (size_t j = first; j < p.count; ++j) p.free[j - first] = p.free[j];
      p.count -= first;
      p.held = held + granted;
      p.free[p.count++] = {block, granted};
    }
  }
  for (size_t i = 0; i < drops; ++i) std::free(dropped[i]);
}

#endif

}  // namespace lidcam::cpu
