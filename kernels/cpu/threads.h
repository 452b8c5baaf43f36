// The threads of kernels that share out their work.
#pragma once
#include <cstdint>
#include <functional>

namespace lidcam::cpu {

// Calls work(i) for every i from 0 to count - 1, on the calling thread and on up to `threads` - 1 others (fewer where
// the system has no more). After the first exception no further work is started; it is thrown again here.
void for_each(int64_t count, int threads, const std::function<void(int64_t)>& work);

}  // namespace lidcam::cpu
