// Device memory in the order of a stream.
#include <map>
#include <mutex>

#include "cuda/driver.h"
#include "cuda/library.h"

namespace lidcam::cuda {
namespace {

// What the pool of a device keeps when a stream is waited for. The driver's own pool keeps nothing, so that memory
// would be mapped anew for every call.
constexpr uint64_t kKept = uint64_t(1) << 30;

// Null where the driver has no pools.
Pool pool_of(const Device& device) {
  static std::mutex mutex;
  static std::map<int, Pool> pools;
  const Library& d = ready();
  if (!d.pool_create || !d.pool_set_attribute || !d.mem_alloc_from_pool) return nullptr;
  std::lock_guard<std::mutex> lock(mutex);
  const auto known = pools.find(device.ordinal);
  if (known != pools.end()) return known->second;
  Pool pool = nullptr;
  PoolProperties properties;
  uint64_t kept = kKept;
  check(d.device_get(&properties.device, device.ordinal), "cuDeviceGet");
  if (d.pool_create(&pool, &properties) || d.pool_set_attribute(pool, kPoolReleaseThreshold, &kept)) pool = nullptr;
  return pools.emplace(device.ordinal, pool).first->second;
}

}  // namespace

void* allocate(size_t bytes, Stream stream, const Device& device) {
  const Library& d = ready();
  uintptr_t memory = 0;
  if (Pool pool = pool_of(device))
    check(d.mem_alloc_from_pool(&memory, bytes, pool, stream), "cuMemAllocFromPoolAsync");
  else
    check(d.mem_alloc_async(&memory, bytes, stream), "cuMemAllocAsync");
  return reinterpret_cast<void*>(memory);
}

void release(void* memory, Stream stream) {
  check(ready().mem_free_async(reinterpret_cast<uintptr_t>(memory), stream), "cuMemFreeAsync");
}

}  // namespace lidcam::cuda
