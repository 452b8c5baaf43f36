#include "cuda/driver.h"

#include <map>
#include <mutex>

#include "cuda/images.h"
#include "cuda/library.h"

namespace lidcam::cuda {
namespace {

struct Devices {
  std::string reason;
  std::vector<Device> all;

  Devices() : reason(library().reason) {
    if (!reason.empty()) return;
    const Library& d = library();
    int count = 0;
    Result result = d.init(0);
    if (result == 0) result = d.device_get_count(&count);
    if (result || count == 0) {
      reason = "the NVIDIA driver offers no device: " + (result ? d.describe(result) : std::string("it counts none"));
      return;
    }
    for (int i = 0; i < count; ++i) {
      int handle = 0;
      char name[128] = "";
      Device device;
      device.ordinal = i;
      if (d.device_get(&handle, i) || d.device_get_name(name, sizeof name, handle) ||
          d.device_get_attribute(&device.major, kMajor, handle) ||
          d.device_get_attribute(&device.minor, kMinor, handle) ||
          d.device_get_attribute(&device.processors, kProcessors, handle) ||
          d.device_get_attribute(&device.shared_limit, kSharedOptIn, handle)) {
        reason = "device " + std::to_string(i) + " does not answer";
        all.clear();
        return;
      }
      device.name = name;
      all.push_back(device);
    }
  }
};

const Devices& initialised() {
  static const Devices* instance = new Devices;  // kept: threads may launch while the process ends
  return *instance;
}

// Retained once per device and never released, as the runtime API does.
Context primary_context(int ordinal) {
  static std::mutex mutex;
  static std::map<int, Context> contexts;
  const Library& d = ready();
  std::lock_guard<std::mutex> lock(mutex);
  Context& context = contexts[ordinal];
  if (!context) {
    int device = 0;
    check(d.device_get(&device, ordinal), "cuDeviceGet");
    check(d.primary_retain(&context, device), "cuDevicePrimaryCtxRetain");
  }
  return context;
}

}  // namespace

bool compiled() { return image_size(Image::pas) > 0; }

bool installed() { return library().reason.empty(); }

bool available() { return initialised().reason.empty(); }

const std::string& reason() { return initialised().reason; }

const Library& ready() {
  if (!available()) throw Error("CUDA cannot be used: " + reason());
  return library();
}

const std::vector<Device>& devices() {
  ready();
  return initialised().all;
}

int device_of(const void* pointer) {
  int ordinal = -1;
  const Result result = ready().pointer_attribute(&ordinal, kPointerDevice, reinterpret_cast<uintptr_t>(pointer));
  return result ? -1 : ordinal;
}

Scope::Scope(Stream stream, const void* pointer) {
  const Library& d = ready();
  Context current = nullptr, wanted = nullptr;
  check(d.context_get(&current), "cuCtxGetCurrent");
  const auto handle = reinterpret_cast<uintptr_t>(stream);
  if (handle > 2) {  // 1 and 2 name the default streams
    check(d.stream_context(stream, &wanted), "cuStreamGetCtx");
  } else {
    int ordinal = 0, here = -1;
    if (current) check(d.context_device(&here), "cuCtxGetDevice");
    const Result known = d.pointer_attribute(&ordinal, kPointerDevice, reinterpret_cast<uintptr_t>(pointer));
    if (!current) check(known, "cuPointerGetAttribute");
    if (!known && ordinal != here) {
      wanted = primary_context(ordinal);
    }
  }
  if (wanted && wanted != current) {
    check(d.context_push(wanted), "cuCtxPushCurrent");
    pushed_ = true;
  }
  int device = 0;
  const Result result = d.context_device(&device);
  const std::vector<Device>& all = devices();
  if (result || device < 0 || device >= int(all.size())) {
    if (pushed_) d.context_pop(&current);
    check(result, "cuCtxGetDevice");
    throw Error("cuCtxGetDevice gave a device that was not there at the start");
  }
  device_ = &all[device];
}

Scope::~Scope() {
  Context popped;
  if (pushed_) library().context_pop(&popped);
}

}  // namespace lidcam::cuda
