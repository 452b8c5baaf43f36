// lidcam::PaS on a CUDA device: one launch on ONNX Runtime's stream, through the driver API.
#include <exception>
#include <string>

#include "cuda/launch_pas.h"
#include "ops/ops.h"
#include "ops/pas_node.h"

// The tests run this operator on a machine without a device: as a CPU operator, over a stand-in for the driver.
#ifndef LIDCAM_OPS_PROVIDER
#define LIDCAM_OPS_PROVIDER "CUDAExecutionProvider"
#define LIDCAM_OPS_MAY_LACK_STREAM false
#endif

namespace lidcam::ops {
namespace {

constexpr bool kMayLackStream = LIDCAM_OPS_MAY_LACK_STREAM;

OrtStatus* compute(void* kernel, OrtKernelContext* context) noexcept {
  const PasKernel& self = *static_cast<PasKernel*>(kernel);
  PasCall c;
  if (OrtStatus* status = open_call(*self.api, context, &c)) return status;
  void* stream = nullptr;
  if (OrtStatus* status = self.api->KernelContext_GetGPUComputeStream(context, &stream)) return status;
  if (!stream && !kMayLackStream)  // the default stream would not wait for the provider's work
    return self.api->CreateStatus(
        ORT_FAIL,
        "lidcam::PaS on CUDA: the execution provider has no stream: leave user_compute_stream out, or give a stream");
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
    made.KernelComputeV2 = compute;
    return made;
  }();
  return &op;
}

}  // namespace lidcam::ops
