// lidcam::PaS on the CPU: the kernel of kernels/pas, one map per task of ONNX Runtime's own threads.
#include <atomic>
#include <exception>

#include "ops/ops.h"
#include "ops/pas_node.h"
#include "pas/pas.h"

namespace lidcam::ops {
namespace {

struct Work {
  const PasCall* call;
  const pas::PasOptions* options;
  std::atomic<bool> out_of_memory{false};
};

void run_one(void* data, size_t index) noexcept {
  Work& work = *static_cast<Work*>(data);
  const PasCall& c = *work.call;
  const int64_t i = int64_t(index), pixels = int64_t(c.height) * c.width;
  thread_local pas::Workspace space;
  try {
    pas::pas_map(c.cam + i * c.h * c.w, c.h, c.w, c.height, c.width, *work.options, space, c.map + i * pixels,
                 c.mask + i * pixels, c.threshold + i);
  } catch (const std::exception&) {
    work.out_of_memory = true;
  }
}

OrtStatus* compute(void* kernel, OrtKernelContext* context) noexcept {
  const PasKernel& self = *static_cast<PasKernel*>(kernel);
  PasCall call;
  if (OrtStatus* status = open_call(*self.api, context, &call)) return status;
  Work work;
  work.call = &call;
  work.options = &self.options;
  const size_t count = size_t(call.n * call.k);
  if (count == 1) {
    run_one(&work, 0);
  } else if (count > 1) {
    if (OrtStatus* status = self.api->KernelContext_ParallelFor(context, run_one, count, 0, &work)) return status;
  }
  if (work.out_of_memory) return self.api->CreateStatus(ORT_FAIL, "lidcam::PaS: out of memory");
  return nullptr;
}

}  // namespace

const OrtCustomOp* pas_cpu() {
  static const OrtCustomOp op = [] {
    OrtCustomOp made{};
    fill_schema(made);
    made.GetExecutionProviderType = [](const OrtCustomOp*) { return "CPUExecutionProvider"; };
    made.KernelComputeV2 = compute;
    return made;
  }();
  return &op;
}

}  // namespace lidcam::ops
