#include "cuda/launch_boxes.h"

#include <algorithm>
#include <stdexcept>

#include "components/runs.h"
#include "cuda/launching.h"

namespace lidcam::cuda {
namespace {

using namespace components::cuda;

unsigned blocks_of(int64_t count, int64_t parts) {
  if (count * parts > 0x7fffffff) throw std::invalid_argument("so many masks of this size do not fit one launch");
  return unsigned(count * parts);
}

// From the bits to the boxes: a block per mask, with all the shared memory that its runs can use.
void launch_runs(Stream stream, const Device& device, int64_t count, int height, int width, bool by_pixels,
                 void* memory, long long stride, int32_t* boxes) {
  const int64_t wanted = kScratchBytes + run_bytes(height, width);
  int shared = int(std::min<int64_t>(wanted, device.shared_limit)), pixels = by_pixels;
  void* arguments[] = {&height, &width, &pixels, &shared, &memory, &stride, &boxes};
  launch(function(Image::components, "lidcam_boxes"),
         {unsigned(count), components::cuda::kThreads, unsigned(shared), 1, stream}, arguments);
}

}  // namespace

size_t boxes_workspace(int64_t count, int height, int width) {
  check_size(count, {height, width});
  return size_t(count) * size_t(mask_bytes(height, width));
}

void launch_boxes(Stream stream, const uint8_t* mask, int64_t count, int height, int width, bool by_pixels,
                  int32_t* boxes, const Workspace& workspace) {
  check_size(count, {height, width});
  if (count == 0) return;
  unsigned parts = unsigned(mask_bit_blocks(height, width));
  const unsigned blocks = blocks_of(count, parts);
  const Scope scope(stream, mask);
  const Memory memory(workspace, boxes_workspace(count, height, width), stream, scope.device());
  void* place = memory.data();
  long long stride = mask_bytes(height, width);
  void* arguments[] = {&mask, &height, &width, &parts, &place, &stride};
  launch(function(Image::components, "lidcam_mask_bits"), {blocks, kBitThreads, 0, 1, stream}, arguments);
  launch_runs(stream, scope.device(), count, height, width, by_pixels, place, stride, boxes);
}

void launch_boxes_at_size(Stream stream, const uint8_t* map, const float* level, int64_t count, int map_height,
                          int map_width, int height, int width, bool by_pixels, int32_t* boxes,
                          const Workspace& workspace) {
  check_size(count, {map_height, map_width, height, width});
  if (count == 0) return;
  unsigned parts = unsigned(map_bit_blocks(height, width));
  const unsigned blocks = blocks_of(count, parts);
  const Scope scope(stream, map);
  const Memory memory(workspace, boxes_workspace(count, height, width), stream, scope.device());
  void* place = memory.data();
  long long stride = mask_bytes(height, width);
  void* arguments[] = {&map, &level, &map_height, &map_width, &height, &width, &parts, &place, &stride};
  launch(function(Image::components, "lidcam_map_bits"), {blocks, kBitThreads, 0, 1, stream}, arguments);
  launch_runs(stream, scope.device(), count, height, width, by_pixels, place, stride, boxes);
}

}  // namespace lidcam::cuda
