// What every form of the PaS operator shares: schema, attributes, shapes.
#pragma once
#include <onnxruntime_c_api.h>

#include <cstdint>

#include "pas/pas.h"

namespace lidcam::ops {

// Inputs of one call, checked. `cam` points into the memory of the kernel's device.
struct PasCall {
  const float* cam;
  int64_t n, k;
  int h, w, height, width;
  uint8_t* map;
  uint8_t* mask;
  float* threshold;
};

// Fills names, types and counts of the schema; the caller adds CreateKernelV2, KernelComputeV2, KernelDestroy and the
// execution provider.
void fill_schema(OrtCustomOp& op);

// Attributes of the node; all of percentile, theta, mode, precision, where and interpolation must be there.
OrtStatus* read_attributes(const OrtApi& api, const OrtKernelInfo* info, pas::Options* options);

// Checks the inputs' shapes and allocates the outputs.
OrtStatus* open_call(const OrtApi& api, OrtKernelContext* context, PasCall* call);

}  // namespace lidcam::ops
