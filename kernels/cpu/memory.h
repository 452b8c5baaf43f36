// Uninitialised arrays whose memory is handed out again: fresh pages cost as much as the kernels that fill them.
#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "cpu/isa.h"

namespace lidcam::cpu {

// Blocks of at least `bytes`, aligned to 64. The pool keeps up to 64 free blocks, of 256 MiB in all, and none that are
// smaller than 32 KiB.
void* take_block(size_t bytes, size_t* granted);
void give_block(void* block, size_t granted) noexcept;

template <typename T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Buffer() = default;
  explicit Buffer(size_t count) { allocate(count); }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { release(); }

  // The old content is lost.
  void allocate(size_t count) {
    release();
    if (count > (SIZE_MAX >> 1) / sizeof(T)) count = (SIZE_MAX >> 1) / sizeof(T);
    data_ = static_cast<T*>(take_block(count * sizeof(T), &granted_));
    size_ = count;
  }
  void release() noexcept {
    if (data_) give_block(data_, granted_);
    data_ = nullptr;
    size_ = granted_ = 0;
  }
  void fill(T value) {
    for (size_t i = 0; i < size_; ++i) data_[i] = value;
  }
  LIDCAM_INLINE T* data() { return data_; }
  LIDCAM_INLINE const T* data() const { return data_; }
  LIDCAM_INLINE T& operator[](size_t i) { return data_[i]; }
  LIDCAM_INLINE const T& operator[](size_t i) const { return data_[i]; }
  LIDCAM_INLINE size_t size() const { return size_; }
  size_t bytes() const { return granted_; }
  LIDCAM_INLINE bool empty() const { return size_ == 0; }

 private:
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(granted_, other.granted_);
  }
  T* data_ = nullptr;
  size_t size_ = 0, granted_ = 0;
};

}  // namespace lidcam::cpu
