#include "cuda/library.h"

#include <dlfcn.h>

#include "cuda/images.h"

namespace lidcam::cuda {

Library::Library() {
  if (!compiled()) {
    reason = "this build has no CUDA kernels (there was no nvcc when it was built)";
    return;
  }
  void* const handle = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    reason = "no NVIDIA driver: libcuda.so.1 cannot be loaded";
    return;
  }
  const auto find = [&](auto& function, const char* name, bool needed = true) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(handle, name));
    if (!function && needed && reason.empty())
      reason = std::string("libcuda.so.1 has no ") + name + ": the driver is too old";
  };
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
  find(stream_context, "cuStreamGetCtx");
  find(pointer_attribute, "cuPointerGetAttribute");
  find(module_load, "cuModuleLoadData");
  find(module_function, "cuModuleGetFunction");
  find(function_get_attribute, "cuFuncGetAttribute");
  find(function_set_attribute, "cuFuncSetAttribute");
  find(launch, "cuLaunchKernel");
  find(mem_alloc_async, "cuMemAllocAsync");
  find(mem_free_async, "cuMemFreeAsync");
  find(event_create, "cuEventCreate");
  find(event_record, "cuEventRecord");
  find(event_destroy, "cuEventDestroy_v2");
  find(stream_wait, "cuStreamWaitEvent");
  find(launch_ex, "cuLaunchKernelEx", false);
  find(max_clusters, "cuOccupancyMaxActiveClusters", false);
  find(pool_create, "cuMemPoolCreate", false);
  find(pool_set_attribute, "cuMemPoolSetAttribute", false);
  find(mem_alloc_from_pool, "cuMemAllocFromPoolAsync", false);
  find(context_id, "cuCtxGetId", false);
}

std::string Library::describe(Result result) const {
  const char* text = nullptr;
  if (get_error_string && get_error_string(result, &text) == 0 && text) return text;
  return "error " + std::to_string(result);
}

const Library& library() {
  static const Library* instance = new Library;  // kept: threads may launch while the process ends
  return *instance;
}

void check(Result result, const char* call) {
  if (result) throw Error(std::string(call) + " failed: " + library().describe(result));
}

}  // namespace lidcam::cuda
