#include "cpu/threads.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace lidcam::cpu {

void for_each(int64_t count, int threads, const std::function<void(int64_t)>& work) {
  std::atomic<int64_t> next{0};
  std::mutex mutex;
  std::exception_ptr error;
  const auto run = [&] {
    for (int64_t i; (i = next.fetch_add(1)) < count;) {
      try {
        work(i);
      } catch (...) {
        std::lock_guard<std::mutex> guard(mutex);
        if (!error) error = std::current_exception();
        next = count;
      }
    }
  };
  std::vector<std::thread> others;
  const int64_t wanted = std::min<int64_t>(threads, count) - 1;
  try {
    for (int64_t i = 0; i < wanted; ++i) others.emplace_back(run);
  } catch (const std::system_error&) {  // the thread limit is reached: fewer share the work
  } catch (const std::bad_alloc&) {
  }
  run();
  for (std::thread& thread : others) thread.join();
  if (error) std::rethrow_exception(error);
}

}  // namespace lidcam::cpu
