// The attributes of the operator lidcam::PaS: their names, their values and what the kernels take for them.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "pas/pas_args.h"

namespace lidcam::pas {

struct PasOptions {
  double percentile = 98.0;
  double theta = 0.35;
  bool normalize = false;        // mode
  bool float_precision = false;  // precision
  bool raw = false;              // where
  bool linear = false;           // interpolation
};

struct NumberAttribute {
  const char* name;
  double limit;  // the range begins at 0
  double PasOptions::* member;
};
struct ChoiceAttribute {
  const char* name;
  const char *off, *on;  // its two values
  bool PasOptions::* member;
  int32_t flag;  // of the CUDA kernels
};

inline constexpr NumberAttribute kNumbers[] = {
    {"percentile", 100.0, &PasOptions::percentile},
    {"theta", 1.0, &PasOptions::theta},
};
inline constexpr ChoiceAttribute kChoices[] = {
    {"mode", "threshold", "normalize", &PasOptions::normalize, cuda::kNormalize},
    {"precision", "uint8", "float", &PasOptions::float_precision, cuda::kFloat},
    {"where", "resized", "raw", &PasOptions::raw, cuda::kRaw},
    {"interpolation", "cubic", "linear", &PasOptions::linear, cuda::kLinear},
};

// Such as "mode must be threshold or normalize".
std::string requirement(const NumberAttribute& attribute);
std::string requirement(const ChoiceAttribute& attribute);

// Throw std::invalid_argument with the requirement and the value where it is not met.
void set(PasOptions& options, const NumberAttribute& attribute, double value);
void set(PasOptions& options, const ChoiceAttribute& attribute, std::string_view value);

// All attributes at once.
PasOptions make_options(double percentile, double theta, std::string_view mode, std::string_view precision,
                        std::string_view where, std::string_view interpolation);

// As integers: what the CUDA kernels take, and to which precision the CPU reads them.
int percentile_milli(const PasOptions& options);  // rint(1000 percentile)
int theta_micro(const PasOptions& options);       // rint(1000000 theta)
int32_t flags(const PasOptions& options);

}  // namespace lidcam::pas
