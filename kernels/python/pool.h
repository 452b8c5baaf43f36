// Result buffers that are handed out again: pages of a fresh block cost more than the kernel that fills them.
#pragma once
#include <cstddef>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

namespace lidcam {

class Pool {
 public:
  void* take(size_t bytes) {
    {
      std::lock_guard<std::mutex> guard(mutex_);
      for (size_t i = free_.size(); i-- > 0;)
        if (free_[i].bytes == bytes) {
          void* block = free_[i].block;
          free_.erase(free_.begin() + i);
          held_ -= bytes;
          return block;
        }
    }
    void* block = std::malloc(bytes);
    if (!block) throw std::bad_alloc();
    return block;
  }
  void give(void* block, size_t bytes) noexcept {
    {
      std::lock_guard<std::mutex> guard(mutex_);
      if (free_.size() < kBlocks && held_ + bytes <= kBytes) {
        free_.push_back({block, bytes});
        held_ += bytes;
        return;
      }
    }
    std::free(block);
  }
  static Pool& instance() {
    static Pool* pool = new Pool;  // never destroyed: arrays may outlive the module's statics
    return *pool;
  }

 private:
  Pool() { free_.reserve(kBlocks); }
  struct Block {
    void* block;
    size_t bytes;
  };
  static constexpr size_t kBlocks = 8, kBytes = size_t(64) << 20;
  std::mutex mutex_;
  std::vector<Block> free_;
  size_t held_ = 0;
};

}  // namespace lidcam
