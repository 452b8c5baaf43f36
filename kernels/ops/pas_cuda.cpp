// lidcam::PaS on a CUDA device: one launch on ONNX Runtime's stream, through the driver API.
#include <exception>
#include <new>

#include "cuda/launch.h"
#include "ops/ops.h"
#include "ops/pas_node.h"

// The tests run this operator on a machine without a device: as a CPU operator, over a stand-in for the driver.
#ifndef LIDCAM_OPS_PROVIDER
#define LIDCAM_OPS_PROVIDER "CUDAExecutionProvider"
#endif

namespace lidcam::ops {
namespace {

struct Kernel {
  const OrtApi* api;
  pas::Options options;
};

OrtStatus* create(const OrtCustomOp*, const OrtApi* api, const OrtKernelInfo* info, void** kernel) noexcept {
  pas::Options options;
  if (OrtStatus* status = read_attributes(*api, info, &options)) return status;
  *kernel = new (std::nothrow) Kernel{api, options};
  return *kernel ? nullptr : api->CreateStatus(ORT_FAIL, "lidcam::PaS: out of memory");
}

OrtStatus* compute(void* kernel, OrtKernelContext* context) noexcept {
  const Kernel& self = *static_cast<Kernel*>(kernel);
  PasCall c;
  if (OrtStatus* status = open_call(*self.api, context, &c)) return status;
  void* stream = nullptr;
  if (OrtStatus* status = self.api->KernelContext_GetGPUComputeStream(context, &stream)) return status;
  try {
    cuda::launch_pas(stream, c.cam, c.n * c.k, c.h, c.w, c.height, c.width, self.options, c.map, c.mask, c.threshold);
  } catch (const std::exception& error) {
    return self.api->CreateStatus(ORT_FAIL, (std::string("lidcam::PaS on CUDA: ") + error.what()).c_str());
  }
  return nullptr;
}

}  // namespace

const OrtCustomOp* pas_cuda() {
  static const OrtCustomOp op = [] {
    OrtCustomOp made{};
    fill_schema(made);
    made.GetExecutionProviderType = [](const OrtCustomOp*) { return LIDCAM_OPS_PROVIDER; };
    made.CreateKernelV2 = create;
    made.KernelComputeV2 = compute;
    made.KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
    return made;
  }();
  return &op;
}

}  // namespace lidcam::ops
