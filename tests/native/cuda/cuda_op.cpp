// The CUDA operator of the ONNX Runtime library as a CPU operator, so that it runs over the stand-in driver.
#define LIDCAM_OPS_PROVIDER "CPUExecutionProvider"
#ifndef LIDCAM_OPS_MAY_LACK_STREAM
#define LIDCAM_OPS_MAY_LACK_STREAM true  // the CPU's provider has none
#endif
#include "cuda/driver.cpp"
#include "cuda/functions.cpp"
#include "cuda/launch_pas.cpp"
#include "cuda/launching.cpp"
#include "cuda/library.cpp"
#include "cuda/memory.cpp"
#include "ops/pas_cuda.cpp"
#include "ops/pas_node.cpp"
#include "pas/options.cpp"

namespace lidcam::cuda {

// What the stand-in takes for a fatbin.
alignas(64) static const uint32_t image[16] = {0xBA55ED50u};
const void* image_data(Image) { return image; }
size_t image_size(Image) { return sizeof image; }
std::string aot_ptx(bool) { return {}; }
const char* architectures() { return ""; }

}  // namespace lidcam::cuda

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                                                               const OrtApiBase* base) {
  const OrtApi* api = base->GetApi(lidcam::ops::kApiVersion);
  if (!lidcam::cuda::available()) return api->CreateStatus(ORT_FAIL, lidcam::cuda::reason().c_str());
  OrtCustomOpDomain* domain = nullptr;
  if (OrtStatus* status = api->CreateCustomOpDomain("lidcam", &domain)) return status;
  if (OrtStatus* status = api->CustomOpDomain_Add(domain, lidcam::ops::pas_cuda())) return status;
  return api->AddCustomOpDomain(options, domain);
}
