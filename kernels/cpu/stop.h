// Stopping a kernel that is running.
#pragma once
#include <atomic>
#include <chrono>
#include <exception>
#include <functional>

namespace lidcam::cpu {

// Ends a call that was asked to stop.
struct Stopped : std::exception {
  const char* what() const noexcept override { return "stopped"; }
};

// Asks the calls that hold it to stop; any thread may set it.
class StopFlag {
 public:
  void set() { set_.store(true, std::memory_order_release); }
  bool is_set() const { return set_.load(std::memory_order_acquire); }

 private:
  std::atomic<bool> set_{false};
};

// While it lives, check_stop() calls `poll` on this thread at once and then every 20 ms. What `poll` throws ends the
// kernel; it runs with the floating point mode that was set when this was made.
class StopScope {
 public:
  explicit StopScope(std::function<void()> poll);
  ~StopScope();
  StopScope(const StopScope&) = delete;
  StopScope& operator=(const StopScope&) = delete;

 private:
  friend void check_stop();
  std::function<void()> poll_;
  std::chrono::steady_clock::time_point next_;
  unsigned long long float_state_;
  StopScope* outer_;
};

// Kernels call this at least every few milliseconds. It takes some 30 ns, or 1 where nothing polls.
void check_stop();

}  // namespace lidcam::cpu
