// The driver's structures as library.h writes them down, against those of <cuda.h>. Only compiled.
#include <cuda.h>

#include <cstddef>

#include "cuda/library.h"

using namespace lidcam::cuda;

static_assert(sizeof(Config) == sizeof(CUlaunchConfig));
static_assert(offsetof(Config, shared_bytes) == offsetof(CUlaunchConfig, sharedMemBytes));
static_assert(offsetof(Config, stream) == offsetof(CUlaunchConfig, hStream));
static_assert(offsetof(Config, attributes) == offsetof(CUlaunchConfig, attrs));
static_assert(offsetof(Config, attribute_count) == offsetof(CUlaunchConfig, numAttrs));
static_assert(sizeof(Attribute) == sizeof(CUlaunchAttribute));
static_assert(offsetof(Attribute, value) == offsetof(CUlaunchAttribute, value));
static_assert(kLaunchCluster == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION);
static_assert(kFunctionSharedBytes == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
static_assert(kFunctionStaticShared == CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES);
static_assert(kPointerDevice == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL);
static_assert(kPoolReleaseThreshold == CU_MEMPOOL_ATTR_RELEASE_THRESHOLD);
static_assert(kEventWithoutTiming == CU_EVENT_DISABLE_TIMING);
static_assert(sizeof(PoolProperties) == sizeof(CUmemPoolProps));
static_assert(offsetof(PoolProperties, location) == offsetof(CUmemPoolProps, location));
static_assert(offsetof(PoolProperties, security) == offsetof(CUmemPoolProps, win32SecurityAttributes));
static_assert(offsetof(PoolProperties, limit) == offsetof(CUmemPoolProps, maxSize));
static_assert(PoolProperties().kind == CU_MEM_ALLOCATION_TYPE_PINNED &&
              PoolProperties().location == CU_MEM_LOCATION_TYPE_DEVICE);
static_assert(kProcessors == int(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT));
static_assert(kMajor == int(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR));
static_assert(kMinor == int(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR));
static_assert(kSharedOptIn == int(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN));
static_assert(sizeof(CUcontext) == sizeof(Context) && sizeof(CUstream) == sizeof(Stream) && sizeof(CUdeviceptr) == 8);
