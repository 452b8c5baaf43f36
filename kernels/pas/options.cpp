#include "pas/options.h"

#include <cmath>
#include <cstdio>
#include <stdexcept>

namespace lidcam::pas {

std::string requirement(const NumberAttribute& attribute) {
  char text[64];
  std::snprintf(text, sizeof text, "%s must be 0 to %g", attribute.name, attribute.limit);
  return text;
}

std::string requirement(const ChoiceAttribute& attribute) {
  return std::string(attribute.name) + " must be " + attribute.off + " or " + attribute.on;
}

void set(PasOptions& options, const NumberAttribute& attribute, double value) {
  if (!(value >= 0 && value <= attribute.limit))
    throw std::invalid_argument(requirement(attribute) + ", got " + std::to_string(value));
  options.*attribute.member = value;
}

void set(PasOptions& options, const ChoiceAttribute& attribute, std::string_view value) {
  if (value != attribute.on && value != attribute.off)
    throw std::invalid_argument(requirement(attribute) + ", got " + std::string(value));
  options.*attribute.member = value == attribute.on;
}

PasOptions make_options(double percentile, double theta, std::string_view mode, std::string_view precision,
                        std::string_view where, std::string_view interpolation) {
  PasOptions options;
  set(options, kNumbers[0], percentile);
  set(options, kNumbers[1], theta);
  const std::string_view values[] = {mode, precision, where, interpolation};
  for (int i = 0; i < 4; ++i) set(options, kChoices[i], values[i]);
  return options;
}

int percentile_milli(const PasOptions& options) { return int(std::nearbyint(options.percentile * 1000)); }

int theta_micro(const PasOptions& options) { return int(std::nearbyint(options.theta * 1e6)); }

int32_t flags(const PasOptions& options) {
  int32_t result = 0;
  for (const ChoiceAttribute& choice : kChoices)
    if (options.*choice.member) result |= choice.flag;
  return result;
}

}  // namespace lidcam::pas
