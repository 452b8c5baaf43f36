// A stand-in for libcuda.so.1 whose device is the CPU shim: device memory is host memory, a launch runs to its end.
// Also the kernels themselves for ctypes (run_*).
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <string>

#include "components/runs.h"
#include "kernels_on_cpu.h"

namespace {

int order = 0, major_version = 8;
uint64_t seed = 0;
int launches = 0, last_cluster = 0, last_shared = 0, last_threads = 0;

template <class T>
T argument(void** all, int i) {
  return *static_cast<T*>(all[i]);
}

void run_by_name(const std::string& name, unsigned blocks, unsigned rows, unsigned threads, unsigned shared,
                 unsigned cluster, void** a) {
  ++launches;
  last_cluster = int(cluster);
  last_shared = int(shared);
  last_threads = int(threads);
  on_cpu::Grid g = on_cpu::grid(blocks / cluster, int(threads), int(cluster), int(shared), order, seed);
  g.rows = rows;
  if (name.rfind("lidcam_pas", 0) == 0 && name != "lidcam_pas_aot") {
    on_cpu::pas(g, name, argument<const float*>(a, 0), argument<on_cpu::PasArgs>(a, 1),
                argument<lidcam::pas::cuda::Plan>(a, 2), argument<uint8_t*>(a, 3), argument<uint8_t*>(a, 4),
                argument<float*>(a, 5));
  } else if (name == "lidcam_pas_aot") {
    on_cpu::PasArgs args{};
    int* const fields[] = {&args.h,           &args.w,     &args.height,      &args.width, &args.percentile_milli,
                           &args.theta_micro, &args.flags, &args.shared_bytes};
    for (int i = 0; i < 8; ++i) *fields[i] = argument<int>(a, 2 + i);
    if (args.shared_bytes != int(shared)) std::abort();
    on_cpu::pas_aot(g, argument<const float*>(a, 0), args, argument<uint32_t*>(a, 10), argument<uint32_t*>(a, 11),
                    argument<float*>(a, 12));
  } else if (name == "lidcam_mask_bits") {
    on_cpu::mask_bits(g, argument<const uint8_t*>(a, 0), argument<int>(a, 1), argument<int>(a, 2),
                      argument<unsigned>(a, 3), argument<unsigned char*>(a, 4), argument<long long>(a, 5));
  } else if (name == "lidcam_map_bits") {
    on_cpu::map_bits(g, argument<const uint8_t*>(a, 0), argument<const float*>(a, 1), argument<int>(a, 2),
                     argument<int>(a, 3), argument<int>(a, 4), argument<int>(a, 5), argument<unsigned>(a, 6),
                     argument<unsigned char*>(a, 7), argument<long long>(a, 8));
  } else if (name == "lidcam_boxes") {
    if (argument<int>(a, 3) != int(shared)) std::abort();
    on_cpu::runs(g, argument<int>(a, 0), argument<int>(a, 1), argument<int>(a, 2), argument<unsigned char*>(a, 4),
                 argument<long long>(a, 5), argument<int*>(a, 6));
  } else if (name == "lidcam_resample" || name == "lidcam_energies" || name == "lidcam_refined" ||
             name == "lidcam_zero") {
    on_cpu::picture(g, name, a);
  } else if (name == "lidcam_crf_words") {
    on_cpu::crf_words(g, argument<lidcam::crf::cuda::Words>(a, 0), argument<int*>(a, 1));
  } else {
    on_cpu::crf(g, name, argument<on_cpu::CrfArrays>(a, 0), argument<on_cpu::CrfArgs>(a, 1), argument<int>(a, 2),
                argument<int>(a, 3));
  }
}

const char* const kNames[] = {
    "lidcam_pas",       "lidcam_pas_bytes", "lidcam_pas_bytes_cluster", "lidcam_pas_cluster",
    "lidcam_pas_aot",   "lidcam_mask_bits", "lidcam_map_bits",          "lidcam_boxes",
    "lidcam_crf_words", "lidcam_crf_clear", "lidcam_crf_vertices",      "lidcam_crf_neighbours",
    "lidcam_crf_weigh", "lidcam_crf_norms", "lidcam_crf_blur_weights",  "lidcam_crf_begin",
    "lidcam_crf_blur",  "lidcam_crf_mix",   "lidcam_crf_step",          "lidcam_crf_step_two",
    "lidcam_resample",  "lidcam_energies",  "lidcam_refined",           "lidcam_zero"};
constexpr int kFunctions = int(std::size(kNames));
std::atomic<int> shared_limits[kFunctions];  // less what every launch may have
// Calls so far: cuInit, modules loaded, primary contexts retained, limits of shared memory set, pools made, memory
// taken of a pool, memory taken otherwise, waits for events.
enum Count { kInits, kLoads, kRetains, kLimits, kPools, kFromPool, kOtherwise, kWaits, kCounts };
std::atomic<int> counts[kCounts];
std::atomic<uint64_t> pool_kept{0};
int pool = 0;
struct {
  void *event_stream, *waiting;
} last_wait;

// STAND_IN_CLUSTERS: how many clusters of 8, 4 and 2 run at once, as "15 32 66".
int clusters_of(unsigned size) {
  int at_once[3] = {132 / 8, 132 / 4, 132 / 2};
  if (const char* text = std::getenv("STAND_IN_CLUSTERS"))
    std::sscanf(text, "%d %d %d", &at_once[0], &at_once[1], &at_once[2]);
  return size == 8 ? at_once[0] : size == 4 ? at_once[1] : at_once[2];
}

int contexts[2] = {};
int pointer_device = 0, last_device = -1;
thread_local void* current = nullptr;
thread_local std::vector<void*> below;

}  // namespace

extern "C" {

void stand_in_order(int o, uint64_t s) { order = o, seed = s; }
void stand_in_last(int* out) { out[0] = launches, out[1] = last_cluster, out[2] = last_shared, out[3] = last_threads; }
int stand_in_device() { return last_device; }  // of the last launch

void run_pas(const float* cam, int count, const on_cpu::PasArgs* args, int threads, int cluster, int o, uint64_t s,
             uint8_t* map, uint8_t* mask, float* threshold) {
  on_cpu::pas(on_cpu::grid(count, threads, cluster, args->shared_bytes, o, s), cam, *args, map, mask, threshold);
}
void run_pas_aot(const float* cam, int count, const on_cpu::PasArgs* args, int threads, int o, uint64_t s,
                 uint32_t* map, uint32_t* mask, float* threshold) {
  on_cpu::pas_aot(on_cpu::grid(count, threads, 1, args->shared_bytes, o, s), cam, *args, map, mask, threshold);
}
void run_boxes(const uint8_t* mask, int count, int height, int width, int by_pixels, int shared, int threads, int o,
               uint64_t s, int* out) {
  on_cpu::boxes(on_cpu::grid(count, threads, 1, shared, o, s), mask, height, width, by_pixels, out);
}
void run_boxes_at_size(const uint8_t* map, const float* level, int count, int map_height, int map_width, int height,
                       int width, int by_pixels, int shared, int threads, int o, uint64_t s, int* out) {
  on_cpu::boxes_at_size(on_cpu::grid(count, threads, 1, shared, o, s), map, level, map_height, map_width, height, width,
                        by_pixels, out);
}

void stand_in_counts(int* out) { std::copy(counts, counts + kCounts, out); }
unsigned long long stand_in_pool_kept() { return pool_kept; }
void stand_in_last_wait(unsigned long long* out) {
  out[0] = reinterpret_cast<uintptr_t>(last_wait.waiting);
  out[1] = reinterpret_cast<uintptr_t>(last_wait.event_stream);
}

int cuInit(unsigned) {
  ++counts[kInits];
  if (const char* text = std::getenv("STAND_IN_MAJOR")) major_version = std::atoi(text);
  if (const char* text = std::getenv("STAND_IN_INIT_ERROR")) return std::atoi(text);
  return 0;
}
int cuGetErrorString(int, const char** text) {
  *text = "an error of the stand-in";
  return 0;
}
int cuDeviceGetCount(int* n) {
  *n = 2;
  return 0;
}
int cuDeviceGet(int* device, int ordinal) {
  *device = ordinal;
  return 0;
}
int cuDeviceGetName(char* name, int size, int) {
  std::snprintf(name, size, "stand-in");
  return 0;
}
int cuDeviceGetAttribute(int* value, int attribute, int) {
  *value = attribute == 75   ? major_version
           : attribute == 76 ? 0
           : attribute == 16 ? 132
           : attribute == 97 ? 101376
                             : -1;
  return *value < 0;
}
int cuDevicePrimaryCtxRetain(void** context, int device) {
  ++counts[kRetains];
  *context = &contexts[device];
  return 0;
}
void stand_in_place(int device, int of_pointers) {
  current = device < 0 ? nullptr : &contexts[device];
  pointer_device = of_pointers;
}
int cuCtxGetCurrent(void** context) {
  *context = current;
  return 0;
}
int cuCtxPushCurrent_v2(void* context) {
  below.push_back(current);
  current = context;
  return 0;
}
int cuCtxPopCurrent_v2(void** context) {
  *context = current;
  current = below.back();
  below.pop_back();
  return 0;
}
int cuCtxGetDevice(int* device) {
  *device = current == &contexts[1];
  return current ? 0 : 201;
}
int cuStreamGetCtx(void*, void** context) {
  *context = &contexts[0];
  return 0;
}
// Addresses from 2^60 on are on device 1.
int cuPointerGetAttribute(void* data, int, uintptr_t pointer) {
  *static_cast<int*>(data) = pointer >> 60 ? 1 : pointer_device;
  return pointer_device < 0;
}
int cuModuleLoadData(void** module, const void* image) {
  ++counts[kLoads];
  const bool fatbin = *static_cast<const uint32_t*>(image) == 0xBA55ED50u;
  if (!fatbin && std::strncmp(static_cast<const char*>(image), "//", 2) != 0) return 200;  // PTX starts with a comment
  *module = const_cast<void*>(image);
  return 0;
}
int cuModuleGetFunction(void** function, void*, const char* name) {
  for (const char* const& known : kNames)
    if (std::string(known) == name) {
      *function = const_cast<void*>(static_cast<const void*>(&known));
      return 0;
    }
  return 500;
}
int cuFuncGetAttribute(int* value, int attribute, void*) {
  *value = 0;
  return attribute != 1;
}
int cuFuncSetAttribute(void* f, int attribute, int value) {
  if (attribute != 8 || value > 101376) return 1;
  ++counts[kLimits];
  shared_limits[static_cast<const char* const*>(f) - kNames] = value - 49152;
  return 0;
}
bool shared_too_large(void* f, unsigned shared) {
  return int(shared) > 49152 + shared_limits[static_cast<const char* const*>(f) - kNames];
}
int cuOccupancyMaxActiveClusters(int* clusters, void*, const unsigned* config) {
  const unsigned* attribute;
  std::memcpy(&attribute, reinterpret_cast<const unsigned char*>(config) + 40, sizeof attribute);
  *clusters = clusters_of(attribute[2]);
  return 0;
}
int failure() {
  const char* text = std::getenv("STAND_IN_LAUNCH_ERROR");
  return text ? std::atoi(text) : 0;
}
int cuLaunchKernel(void* f, unsigned gx, unsigned gy, unsigned, unsigned bx, unsigned, unsigned, unsigned shared, void*,
                   void** arguments, void**) {
  if (!current) return 201;
  last_device = current == &contexts[1];
  if (shared_too_large(f, shared)) return 1;
  if (const int result = failure()) return result;
  run_by_name(*static_cast<const char**>(f), gx, gy, bx, shared, 1, arguments);
  return 0;
}
// Offsets as in <cuda.h>: seven unsigned, the stream, the attributes and their number; abi.cpp checks them.
int cuLaunchKernelEx(const unsigned* config, void* f, void** arguments, void**) {
  if (!current) return 201;
  last_device = current == &contexts[1];
  if (const int result = failure()) return result;
  const auto* bytes = reinterpret_cast<const unsigned char*>(config);
  const unsigned* attribute;
  std::memcpy(&attribute, bytes + 40, sizeof attribute);
  if (config[12] != 1 || attribute[0] != 4 || shared_too_large(f, config[6])) return 1;
  if (!clusters_of(attribute[2])) return 912;
  run_by_name(*static_cast<const char**>(f), config[0], config[1], config[3], config[6], attribute[2], arguments);
  return 0;
}
int cuMemAllocAsync(uintptr_t* memory, size_t bytes, void*) {
  ++counts[kOtherwise];
  *memory = reinterpret_cast<uintptr_t>(std::malloc(bytes));
  return 0;
}
int cuMemFreeAsync(uintptr_t memory, void*) {
  std::free(reinterpret_cast<void*>(memory));
  return 0;
}
int cuMemPoolCreate(void** made, const int* properties) {
  if (properties[0] != 1 || properties[2] != 1 || properties[3] < 0 || properties[3] > 1) return 1;
  ++counts[kPools];
  *made = &pool;
  return 0;
}
int cuMemPoolSetAttribute(void* of, int attribute, uint64_t* value) {
  if (of != &pool || attribute != 4) return 1;
  pool_kept = *value;
  return 0;
}
int cuMemAllocFromPoolAsync(uintptr_t* memory, size_t bytes, void* from, void*) {
  if (from != &pool) return 1;
  ++counts[kFromPool];
  *memory = reinterpret_cast<uintptr_t>(std::malloc(bytes));
  return 0;
}
int cuEventCreate(void** event, unsigned) {
  *event = new void*(nullptr);
  return 0;
}
int cuEventRecord(void* event, void* stream) {
  *static_cast<void**>(event) = stream;
  return 0;
}
int cuStreamWaitEvent(void* stream, void* event, unsigned) {
  ++counts[kWaits];
  last_wait = {*static_cast<void**>(event), stream};
  return 0;
}
int cuEventDestroy_v2(void* event) {
  delete static_cast<void**>(event);
  return 0;
}

}  // extern "C"
