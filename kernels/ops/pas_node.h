// What every form of the PaS operator shares: schema, attributes, shapes.
#pragma once
#include <onnxruntime_c_api.h>

#include <cstdint>

#include "pas/options.h"

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

// A node of a session: what KernelComputeV2 is given.
struct PasKernel {
  const OrtApi* api;
  pas::PasOptions options;
};

// Fills the schema, and makes and frees a PasKernel from the node's attributes (all of percentile, theta, mode,
// precision, where and interpolation must be there); the caller adds KernelComputeV2 and the execution provider.
void fill_schema(OrtCustomOp& op);

// Checks the inputs' shapes and allocates the outputs.
OrtStatus* open_call(const OrtApi& api, OrtKernelContext* context, PasCall* call);

}  // namespace lidcam::ops
