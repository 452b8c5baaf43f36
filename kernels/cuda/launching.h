// What the launchers of all subjects share.
#pragma once
#include <cstdint>
#include <initializer_list>

#include "cuda/driver.h"

namespace lidcam::cuda {

// Throws std::invalid_argument unless each side has 1 to 32768 pixels and the count fits a grid.
void check_size(int64_t count, std::initializer_list<int> sides);

// The caller's workspace, or as many bytes of the stream's memory pool where the caller gives none.
class Memory {
 public:
  Memory(void* given, size_t bytes, Stream stream)
      : data_(given ? given : allocate(bytes, stream)), stream_(stream), mine_(!given) {}
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() {
    try {
      if (mine_) release(data_, stream_);
    } catch (const Error&) {  // the launch itself has already reported what is wrong
    }
  }
  void* data() const { return data_; }

 private:
  void* data_;
  Stream stream_;
  bool mine_;
};

}  // namespace lidcam::cuda
