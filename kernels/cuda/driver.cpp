#include "cuda/driver.h"

#include <dlfcn.h>

#include <map>
#include <mutex>
#include <tuple>

#include "cuda/images.h"

namespace lidcam::cuda {
namespace {

// What we need of <cuda.h>, written down so that no toolkit is needed. tests/native/cuda/abi.cpp compares.
using Result = int;
using Context = void*;
enum DeviceAttribute { kProcessors = 16, kMajor = 75, kMinor = 76, kSharedOptIn = 97 };
constexpr int kFunctionSharedBytes = 8;
constexpr int kPointerDevice = 9;
constexpr int kLaunchCluster = 4;

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

struct Driver {
  void* library = nullptr;
  std::string reason;
  std::vector<Device> devices;

  Result (*init)(unsigned);
  Result (*get_error_string)(Result, const char**);
  Result (*device_get_count)(int*);
  Result (*device_get)(int*, int);
  Result (*device_get_name)(char*, int, int);
  Result (*device_get_attribute)(int*, int, int);
  Result (*primary_retain)(Context*, int);
  Result (*context_get)(Context*);
  Result (*context_push)(Context);
  Result (*context_pop)(Context*);
  Result (*context_device)(int*);
  Result (*context_id)(Context, unsigned long long*);  // may be null: driver 12.0 and later
  Result (*stream_context)(Stream, Context*);
  Result (*pointer_attribute)(void*, int, uintptr_t);
  Result (*module_load)(void**, const void*);
  Result (*module_function)(void**, void*, const char*);
  Result (*function_set_attribute)(void*, int, int);
  Result (*launch)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Stream, void**, void**);
  Result (*launch_ex)(const Config*, void*, void**, void**);  // may be null: driver 11.8 and later
  Result (*mem_alloc_async)(uintptr_t*, size_t, Stream);
  Result (*mem_free_async)(uintptr_t, Stream);

  template <class F>
  bool find(F& function, const char* name, bool needed = true) {
    function = reinterpret_cast<F>(dlsym(library, name));
    if (!function && needed && reason.empty())
      reason = std::string("libcuda.so.1 has no ") + name + ": the driver is too old";
    return function != nullptr;
  }
  std::string describe(Result result) const {
    const char* text = nullptr;
    if (get_error_string && get_error_string(result, &text) == 0 && text) return text;
    return "error " + std::to_string(result);
  }

  Driver() {
    if (!compiled()) {
      reason = "this build has no CUDA kernels (nvcc was not found when it was built)";
      return;
    }
    library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
      reason = "no NVIDIA driver: libcuda.so.1 cannot be loaded";
      return;
    }
    find(init, "cuInit");
    find(get_error_string, "cuGetErrorString");
    find(device_get_count, "cuDeviceGetCount");
    find(device_get, "cuDeviceGet");
    find(device_get_name, "cuDeviceGetName");
    find(device_get_attribute, "cuDeviceGetAttribute");
    find(primary_retain, "cuDevicePrimaryCtxRetain");
    find(context_get, "cuCtxGetCurrent");
    find(context_push, "cuCtxPushCurrent_v2");
    find(context_pop, "cuCtxPopCurrent_v2");
    find(context_device, "cuCtxGetDevice");
    find(context_id, "cuCtxGetId", false);
    find(stream_context, "cuStreamGetCtx");
    find(pointer_attribute, "cuPointerGetAttribute");
    find(module_load, "cuModuleLoadData");
    find(module_function, "cuModuleGetFunction");
    find(function_set_attribute, "cuFuncSetAttribute");
    find(launch, "cuLaunchKernel");
    find(launch_ex, "cuLaunchKernelEx", false);
    find(mem_alloc_async, "cuMemAllocAsync");
    find(mem_free_async, "cuMemFreeAsync");
    if (!reason.empty()) return;
    int count = 0;
    Result result = init(0);
    if (result == 0) result = device_get_count(&count);
    if (result || count == 0) {
      reason = "the NVIDIA driver offers no device: " + (result ? describe(result) : std::string("it counts none"));
      return;
    }
    for (int i = 0; i < count; ++i) {
      int handle = 0;
      char name[128] = "";
      Device d;
      d.ordinal = i;
      if (device_get(&handle, i) || device_get_name(name, sizeof name, handle) ||
          device_get_attribute(&d.major, kMajor, handle) || device_get_attribute(&d.minor, kMinor, handle) ||
          device_get_attribute(&d.processors, kProcessors, handle) ||
          device_get_attribute(&d.shared_limit, kSharedOptIn, handle)) {
        reason = "device " + std::to_string(i) + " does not answer";
        devices.clear();
        return;
      }
      d.name = name;
      devices.push_back(d);
    }
  }
};

const Driver& driver() {
  static const Driver* d = new Driver;  // kept: threads may launch while the process ends
  return *d;
}

const Driver& ready() {
  if (!available()) throw Error("CUDA cannot be used: " + reason());
  return driver();
}

void check(Result result, const char* call) {
  if (result) throw Error(std::string(call) + " failed: " + driver().describe(result));
}

// Handles are those of a context; a context made later may have the address of one that was destroyed.
struct Key {
  Context context;
  unsigned long long id;
  Image image;
  bool operator<(const Key& other) const {
    return std::tie(context, id, image) < std::tie(other.context, other.id, other.image);
  }
};

}  // namespace

bool compiled() { return image_size(Image::pas) > 0; }

bool available() { return driver().reason.empty(); }

const std::string& reason() { return driver().reason; }

const std::vector<Device>& devices() { return ready().devices; }

Scope::Scope(Stream stream, const void* pointer) {
  const Driver& d = ready();
  Context current = nullptr, wanted = nullptr;
  check(d.context_get(&current), "cuCtxGetCurrent");
  const auto handle = reinterpret_cast<uintptr_t>(stream);
  if (handle > 2) {  // 1 and 2 name the default streams
    check(d.stream_context(stream, &wanted), "cuStreamGetCtx");
  } else {
    int ordinal = 0, here = -1, device = 0;
    if (current) check(d.context_device(&here), "cuCtxGetDevice");
    const Result known = d.pointer_attribute(&ordinal, kPointerDevice, reinterpret_cast<uintptr_t>(pointer));
    if (!current) check(known, "cuPointerGetAttribute");
    if (!known && ordinal != here) {
      check(d.device_get(&device, ordinal), "cuDeviceGet");
      check(d.primary_retain(&wanted, device), "cuDevicePrimaryCtxRetain");  // never released, as in the runtime API
    }
  }
  if (wanted && wanted != current) {
    check(d.context_push(wanted), "cuCtxPushCurrent");
    pushed_ = true;
  }
  int device = 0;
  const Result result = d.context_device(&device);
  if (result || device < 0 || device >= int(d.devices.size())) {
    if (pushed_) d.context_pop(&current);
    check(result, "cuCtxGetDevice");
    throw Error("cuCtxGetDevice gave a device that was not there at the start");
  }
  device_ = &d.devices[device];
}

Scope::~Scope() {
  Context popped;
  if (pushed_) driver().context_pop(&popped);
}

void* function(Image image, const char* kernel) {
  static std::mutex mutex;
  static std::map<Key, void*> modules;
  static std::map<std::pair<void*, std::string>, void*> functions;
  const Driver& d = ready();
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
  void*& handle = functions[{module, kernel}];
  if (!handle) check(d.module_function(&handle, module, kernel), "cuModuleGetFunction");
  return handle;
}

void launch(void* function, const Launch& how, void** arguments) {
  const Driver& d = ready();
  if (how.shared > 49152) {
    check(d.function_set_attribute(function, kFunctionSharedBytes, int(how.shared)), "cuFuncSetAttribute");
  }
  if (how.cluster <= 1) {
    check(d.launch(function, how.grid, how.rows, 1, how.block, 1, 1, how.shared, how.stream, arguments, nullptr),
          "cuLaunchKernel");
    return;
  }
  if (!d.launch_ex) throw Error("clusters need cuLaunchKernelEx, which this driver does not have");
  Attribute cluster{};
  cluster.id = kLaunchCluster;
  cluster.value.cluster = {how.cluster, 1, 1};
  Config config{how.grid, how.rows, 1, how.block, 1, 1, how.shared, how.stream, &cluster, 1};
  check(d.launch_ex(&config, function, arguments, nullptr), "cuLaunchKernelEx");
}

void* allocate(size_t bytes, Stream stream) {
  uintptr_t memory = 0;
  check(ready().mem_alloc_async(&memory, bytes, stream), "cuMemAllocAsync");
  return reinterpret_cast<void*>(memory);
}

void release(void* memory, Stream stream) {
  check(ready().mem_free_async(reinterpret_cast<uintptr_t>(memory), stream), "cuMemFreeAsync");
}

}  // namespace lidcam::cuda
