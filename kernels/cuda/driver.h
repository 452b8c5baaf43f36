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

// True when the kernels were compiled in (nvcc was there when this was built).
bool compiled();
// True when a driver is installed too. Loads libcuda.so.1, and does not initialise it: a process may fork after
// it.
bool installed();
// True when a device answers too. The first call initialises the driver (cuInit), no more: no context is made and
// no kernel loaded.
bool available();
// Why available() is false; empty when it is true.
const std::string& reason();

struct Device {
  int ordinal = 0, major = 0, minor = 0, processors = 0;
  int shared_limit = 49152;  // bytes a block may opt in to
  std::string name;
};
// Throws Error unless available().
const std::vector<Device>& devices();
// The device that holds the memory at an address, or -1 where the driver does not know it.
int device_of(const void* pointer);

// While it lives, the context that a launch needs is current: the stream's; for a default stream the current one or, if
// there is none or it belongs to another device, the primary context of the device that holds `pointer`.
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

// The functions below are called within a Scope.

// One compiled file (a fatbin, or PTX for a compute capability and later) and one kernel in it. Loaded at the first
// use in each context; a kernel may then have all the shared memory that its device allows.
enum class Image { pas, components, crf, picture, pas_words_75, pas_words_90 };
void* function(Image image, const char* kernel);
// Loads all kernels that launches in this context use: inside the capture of a CUDA graph nothing can be loaded.
void warm_up(const Device& device);

struct Launch {
  unsigned grid = 1, block = 32, shared = 0, cluster = 1;
  Stream stream = nullptr;
  unsigned rows = 1;  // of blocks, along y
};
void launch(void* function, const Launch& how, void** arguments);
// How many clusters of `how` run at once on the device; 0 where none fits.
int max_clusters(void* function, const Launch& how, const Device& device);
// The largest size of a cluster, a power of two up to `limit`, with which this many tasks run at once, a cluster each;
// else 1.
unsigned cluster_for(void* function, Launch how, int64_t tasks, unsigned limit, const Device& device);

// Memory that is allocated and freed in the order of the stream, from a pool that keeps 1 GiB per device from one call
// to the next.
void* allocate(size_t bytes, Stream stream, const Device& device);
void release(void* memory, Stream stream);
// Device memory that a caller offers to a launch.
struct Workspace {
  void* data = nullptr;
  size_t bytes = 0;
};
// Work enqueued on `stream` from now on waits for what was enqueued on `other` so far.
void wait_for(Stream stream, Stream other);

}  // namespace lidcam::cuda
