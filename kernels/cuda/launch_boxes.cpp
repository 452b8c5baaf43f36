#include "cuda/launch_boxes.h"

#include <vector>

#include "components/runs.h"
#include "cuda/launching.h"

namespace lidcam::cuda {
namespace {

// `arguments`: those of the kernel up to by_pixels; the rest is the same for every kernel of boxes.
void launch_kernel(const char* kernel, Stream stream, const Device& device, std::vector<void*> arguments, int64_t count,
                   int height, int width, int32_t* boxes, const Workspace& workspace) {
  const Memory memory(workspace, boxes_workspace(count, height, width), stream, device);
  const Launch how{unsigned(count), components::cuda::kThreads, components::cuda::kSharedBytes, 1, stream};
  int shared = components::cuda::kSharedBytes;
  long long stride = components::cuda::resized_run_bytes(height, width);
  void* place = memory.data();
  for (void* argument : {static_cast<void*>(&shared), static_cast<void*>(&place), static_cast<void*>(&stride),
                         static_cast<void*>(&boxes)})
    arguments.push_back(argument);
  launch(function(Image::components, kernel), how, arguments.data());
}

}  // namespace

size_t boxes_workspace(int64_t count, int height, int width) {
  check_size(count, {height, width});
  return size_t(count) * size_t(components::cuda::resized_run_bytes(height, width));
}

void launch_boxes(Stream stream, const uint8_t* mask, int64_t count, int height, int width, bool by_pixels,
                  int32_t* boxes, const Workspace& workspace) {
  check_size(count, {height, width});
  if (count == 0) return;
  const Scope scope(stream, mask);
  int pixels = by_pixels;
  launch_kernel("lidcam_boxes", stream, scope.device(), {&mask, &height, &width, &pixels}, count, height, width, boxes,
                workspace);
}

void launch_boxes_at_size(Stream stream, const uint8_t* map, const float* level, int64_t count, int map_height,
                          int map_width, int height, int width, bool by_pixels, int32_t* boxes,
                          const Workspace& workspace) {
  check_size(count, {map_height, map_width, height, width});
  if (count == 0) return;
  const Scope scope(stream, map);
  int pixels = by_pixels;
  launch_kernel("lidcam_boxes_at_size", stream, scope.device(),
                {&map, &level, &map_height, &map_width, &height, &width, &pixels}, count, height, width, boxes,
                workspace);
}

}  // namespace lidcam::cuda
