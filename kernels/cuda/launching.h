// What the launchers of all subjects share.
#pragma once
#include <cstdint>
#include <initializer_list>

#include "cuda/driver.h"

namespace lidcam::cuda {

// Throws std::invalid_argument unless each side has 1 to 32768 pixels and the count fits a grid.
void check_size(int64_t count, std::initializer_list<int> sides);

// The caller's workspace, or memory of the device's pool where that is too small.
class Memory {
 public:
  Memory(const Workspace& given, size_t bytes, Stream stream, const Device& device)
      : stream_(stream), mine_(!given.data || given.bytes < bytes) {
    data_ = mine_ ? allocate(bytes, stream, device) : given.data;
  }
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
