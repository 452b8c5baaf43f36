// Kernels: loading and launching them.
#include <map>
#include <mutex>
#include <tuple>

#include "cuda/driver.h"
#include "cuda/images.h"
#include "cuda/library.h"

namespace lidcam::cuda {
namespace {

constexpr int kSharedWithoutAsking = 49152;

// Handles are those of a context; a context made later may have the address of one that was destroyed.
struct Key {
  Context context;
  unsigned long long id;
  Image image;
  bool operator<(const Key& other) const {
    return std::tie(context, id, image) < std::tie(other.context, other.id, other.image);
  }
};

// All that the device allows, once: with the size of each launch, one thread's limit would be another one's error.
void allow_shared_memory(void* handle) {
  const Library& d = ready();
  int device = 0, fixed = 0;
  check(d.context_device(&device), "cuCtxGetDevice");
  check(d.function_get_attribute(&fixed, kFunctionStaticShared, handle), "cuFuncGetAttribute");
  const int limit = devices().at(size_t(device)).shared_limit - fixed;
  if (limit > kSharedWithoutAsking)
    check(d.function_set_attribute(handle, kFunctionSharedBytes, limit), "cuFuncSetAttribute");
}

Config config_of(const Launch& how, Attribute* cluster) {
  *cluster = {};
  cluster->id = kLaunchCluster;
  cluster->value.cluster = {how.cluster, 1, 1};
  return {how.grid, how.rows, 1, how.block, 1, 1, how.shared, how.stream, cluster, 1};
}

}  // namespace

void* function(Image image, const char* kernel) {
  static std::mutex mutex;
  static std::map<Key, void*> modules;
  static std::map<std::pair<void*, std::string>, void*> functions;
  const Library& d = ready();
  Key key{nullptr, 0, image};
  check(d.context_get(&key.context), "cuCtxGetCurrent");
  if (d.context_id) check(d.context_id(key.context, &key.id), "cuCtxGetId");
  std::lock_guard<std::mutex> lock(mutex);
  void*& module = modules[key];
  if (!module) {
    const Result result = d.module_load(&module, image_data(image));
    if (result) {
      modules.erase(key);
      check(result, "cuModuleLoadData (a driver older than the compiler that built these kernels may refuse them)");
    }
    for (auto it = functions.begin(); it != functions.end();)
      it = it->first.first == module ? functions.erase(it) : ++it;
  }
  const auto known = functions.find({module, kernel});
  if (known != functions.end()) return known->second;
  void* handle = nullptr;
  check(d.module_function(&handle, module, kernel), "cuModuleGetFunction");
  allow_shared_memory(handle);
  functions.emplace(std::make_pair(module, kernel), handle);
  return handle;
}

void warm_up(const Device& device) {
  for (const char* name : {"lidcam_pas", "lidcam_pas_bytes"}) function(Image::pas, name);
  for (const char* name : {"lidcam_mask_bits", "lidcam_map_bits", "lidcam_boxes"}) function(Image::components, name);
  for (const char* name : {"lidcam_crf_words", "lidcam_crf_clear", "lidcam_crf_vertices", "lidcam_crf_neighbours",
                           "lidcam_crf_weigh", "lidcam_crf_blur_weights", "lidcam_crf_norms", "lidcam_crf_begin",
                           "lidcam_crf_blur", "lidcam_crf_mix", "lidcam_crf_step", "lidcam_crf_step_two"})
    function(Image::crf, name);
  for (const char* name : {"lidcam_resample", "lidcam_energies", "lidcam_refined", "lidcam_zero"})
    function(Image::picture, name);
  if (device.major >= 9)
    for (const char* name : {"lidcam_pas_cluster", "lidcam_pas_bytes_cluster"}) function(Image::pas, name);
}

void launch(void* function, const Launch& how, void** arguments) {
  const Library& d = ready();
  if (how.cluster <= 1) {
    check(d.launch(function, how.grid, how.rows, 1, how.block, 1, 1, how.shared, how.stream, arguments, nullptr),
          "cuLaunchKernel");
    return;
  }
  if (!d.launch_ex) throw Error("clusters need cuLaunchKernelEx, which this driver does not have");
  Attribute cluster;
  const Config config = config_of(how, &cluster);
  check(d.launch_ex(&config, function, arguments, nullptr), "cuLaunchKernelEx");
}

int max_clusters(void* function, const Launch& how, const Device& device) {
  const Library& d = ready();
  if (!d.max_clusters) return device.processors / int(how.cluster);
  static std::mutex mutex;
  static std::map<std::tuple<void*, unsigned, unsigned, unsigned>, int> known;
  const auto key = std::make_tuple(function, how.block, how.shared, how.cluster);
  std::lock_guard<std::mutex> lock(mutex);
  const auto entry = known.find(key);
  if (entry != known.end()) return entry->second;
  Attribute cluster;
  const Config config = config_of(how, &cluster);
  int count = 0;
  if (d.max_clusters(&count, function, &config)) count = 0;
  return known.emplace(key, count).first->second;
}

unsigned cluster_for(void* function, Launch how, int64_t tasks, unsigned limit, const Device& device) {
  for (how.cluster = limit; how.cluster > 1; how.cluster /= 2) {
    how.grid = how.cluster;
    if (tasks <= max_clusters(function, how, device)) return how.cluster;
  }
  return 1;
}

void wait_for(Stream stream, Stream other) {
  const Library& d = ready();
  Event event = nullptr;
  check(d.event_create(&event, kEventWithoutTiming), "cuEventCreate");
  Result result = d.event_record(event, other);
  const char* call = "cuEventRecord";
  if (!result) {
    result = d.stream_wait(stream, event, 0);
    call = "cuStreamWaitEvent";
  }
  d.event_destroy(event);  // once it has been reached
  check(result, call);
}

}  // namespace lidcam::cuda
