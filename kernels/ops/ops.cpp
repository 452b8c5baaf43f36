// RegisterCustomOps: the one function that ONNX Runtime calls after loading the library.
#include "ops/ops.h"

#include <map>
#include <mutex>
#include <new>

#include "cuda/driver.h"

namespace {

// The domain of each copy of ONNX Runtime in the process. Sessions keep pointers to it, so it is never released.
std::mutex mutex;

OrtStatus* domain_of(const OrtApi* api, OrtCustomOpDomain** domain) {
  static auto* const domains = new std::map<const OrtApi*, OrtCustomOpDomain*>;
  const std::lock_guard<std::mutex> guard(mutex);
  if (const auto entry = domains->find(api); entry != domains->end()) {
    *domain = entry->second;
    return nullptr;
  }
  if (OrtStatus* status = api->CreateCustomOpDomain("lidcam", domain)) return status;
  if (OrtStatus* status = api->CustomOpDomain_Add(*domain, lidcam::ops::pas_cpu())) return status;
  // Queries no device: that would initialise the driver, after which a process may not fork, also for CPU sessions.
  if (lidcam::cuda::installed())
    if (OrtStatus* status = api->CustomOpDomain_Add(*domain, lidcam::ops::pas_cuda())) return status;
  domains->emplace(api, *domain);
  return nullptr;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) OrtStatus* ORT_API_CALL
RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) noexcept {
  const OrtApi* api = base->GetApi(lidcam::ops::kApiVersion);
  if (!api) {
    // GetApi(1) is in every version; only its error function is used.
    const OrtApi* oldest = base->GetApi(1);
    return oldest ? oldest->CreateStatus(ORT_NOT_IMPLEMENTED, "lidcam operators need onnxruntime 1.17 or newer")
                  : nullptr;
  }
  try {
    OrtCustomOpDomain* domain = nullptr;
    if (OrtStatus* status = domain_of(api, &domain)) return status;
    return api->AddCustomOpDomain(options, domain);
  } catch (const std::bad_alloc&) {
    return api->CreateStatus(ORT_FAIL, "lidcam operators: out of memory");
  }
}
