#include "cuda/launching.h"

#include <stdexcept>

namespace lidcam::cuda {
namespace {

constexpr int kMaxSide = 32768;

}  // namespace

void check_size(int64_t count, std::initializer_list<int> sides) {
  for (int side : sides)
    if (side < 1 || side > kMaxSide) throw std::invalid_argument("height and width must be 1 to 32768 pixels");
  if (count < 0 || count > 0x7fffffff / 8) throw std::invalid_argument("a batch may hold 0 to 268435455 maps");
}

}  // namespace lidcam::cuda
