// The functions of NVIDIA's driver library that the launcher calls, and its structures, written down so that no toolkit
// is needed. tests/native/cuda/abi.cpp compares them with <cuda.h>.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "cuda/driver.h"

namespace lidcam::cuda {

using Result = int;
using Context = void*;
using Pool = void*;
using Event = void*;

enum DeviceAttribute { kProcessors = 16, kMajor = 75, kMinor = 76, kSharedOptIn = 97 };
constexpr int kFunctionStaticShared = 1, kFunctionSharedBytes = 8;
constexpr int kPointerDevice = 9;
constexpr int kLaunchCluster = 4;
constexpr int kPoolReleaseThreshold = 4;
constexpr unsigned kEventWithoutTiming = 2;

struct Attribute {
  int id;
  char pad[4];
  union {
    char bytes[64];
    struct {
      unsigned x, y, z;
    } cluster;
  } value;
};
struct Config {
  unsigned grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes;
  Stream stream;
  Attribute* attributes;
  unsigned attribute_count;
};
static_assert(sizeof(Attribute) == 72 && sizeof(Config) == 56);
struct PoolProperties {
  int kind = 1;  // pinned memory
  int handles = 0;
  int location = 1;  // of a device:
  int device = 0;
  void* security = nullptr;
  size_t limit = 0;
  unsigned short usage = 0;
  unsigned char reserved[54] = {};
};
static_assert(sizeof(PoolProperties) == 88);

// Loaded at the first use; not initialised, so that a process may fork afterwards.
struct Library {
  Library();

  std::string reason;  // why it cannot be used; empty where it can
  Result (*init)(unsigned) = nullptr;
  Result (*get_error_string)(Result, const char**) = nullptr;
  Result (*device_get_count)(int*) = nullptr;
  Result (*device_get)(int*, int) = nullptr;
  Result (*device_get_name)(char*, int, int) = nullptr;
  Result (*device_get_attribute)(int*, int, int) = nullptr;
  Result (*primary_retain)(Context*, int) = nullptr;
  Result (*context_get)(Context*) = nullptr;
  Result (*context_push)(Context) = nullptr;
  Result (*context_pop)(Context*) = nullptr;
  Result (*context_device)(int*) = nullptr;
  Result (*stream_context)(Stream, Context*) = nullptr;
  Result (*pointer_attribute)(void*, int, uintptr_t) = nullptr;
  Result (*module_load)(void**, const void*) = nullptr;
  Result (*module_function)(void**, void*, const char*) = nullptr;
  Result (*function_get_attribute)(int*, int, void*) = nullptr;
  Result (*function_set_attribute)(void*, int, int) = nullptr;
  Result (*launch)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Stream, void**,
                   void**) = nullptr;
  Result (*mem_alloc_async)(uintptr_t*, size_t, Stream) = nullptr;
  Result (*mem_free_async)(uintptr_t, Stream) = nullptr;
  Result (*event_create)(Event*, unsigned) = nullptr;
  Result (*event_record)(Event, Stream) = nullptr;
  Result (*event_destroy)(Event) = nullptr;
  Result (*stream_wait)(Stream, Event, unsigned) = nullptr;
  // Null where the driver is too old: before 11.8 (clusters), 11.2 (pools), 12.0 (the id).
  Result (*launch_ex)(const Config*, void*, void**, void**) = nullptr;
  Result (*max_clusters)(int*, void*, const Config*) = nullptr;
  Result (*pool_create)(Pool*, const PoolProperties*) = nullptr;
  Result (*pool_set_attribute)(Pool, int, void*) = nullptr;
  Result (*mem_alloc_from_pool)(uintptr_t*, size_t, Pool, Stream) = nullptr;
  Result (*context_id)(Context, unsigned long long*) = nullptr;

  std::string describe(Result result) const;
};

const Library& library();
// The library with a device that answers; throws Error where there is none.
const Library& ready();
void check(Result result, const char* call);

}  // namespace lidcam::cuda
