// NVIDIA's driver API, loaded at run time: CUDA is needed neither to compile this nor to run it where there is no
// device.
#pragma once
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace lidcam::cuda {

// A driver call failed, or no device answers. The message says which call and why.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

using Stream = void*;  // CUstream = cudaStream_t; null is the legacy default stream

// True when this library holds kernels and a device answers. The first call loads libcuda.so.1 and calls cuInit, no
// more: no context is made and no kernel loaded.
bool available();
// Why available() is false; empty when it is true.
const std::string& reason();
// True when the kernels were compiled in (nvcc was there when this was built).
bool compiled();

struct Device {
  int ordinal = 0, major = 0, minor = 0, processors = 0;
  int shared_limit = 49152;  // bytes a block may opt in to
  std::string name;
};
// Throws Error unless available().
const std::vector<Device>& devices();

// While it lives, the context that a launch needs is current: that of the stream; for a default stream the current
// one, or where that is none or of another device, the primary context of the device that holds `pointer`.
class Scope {
 public:
  Scope(Stream stream, const void* pointer);
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;
  const Device& device() const { return *device_; }

 private:
  const Device* device_ = nullptr;
  bool pushed_ = false;
};

// One compiled file (a fatbin, or PTX for a compute capability and later) and one kernel in it. Loaded at the first
// launch of each context.
enum class Image { pas, components, crf, pas_words_75, pas_words_90 };
void* function(Image image, const char* kernel);

struct Launch {
  unsigned grid = 1, block = 32, shared = 0, cluster = 1;
  Stream stream = nullptr;
  unsigned rows = 1;  // of blocks, along y
};
// Within a Scope.
void launch(void* function, const Launch& how, void** arguments);
// Memory that is taken and given back in the order of the stream.
void* allocate(size_t bytes, Stream stream);
void release(void* memory, Stream stream);

}  // namespace lidcam::cuda
