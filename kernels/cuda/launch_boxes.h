// Boxes of masks in device memory. Pointers are device pointers; each call enqueues its work on the stream and returns.
#pragma once
#include <cstddef>
#include <cstdint>

#include "cuda/driver.h"

namespace lidcam::cuda {

// The box of the largest component (8 neighbours) of each mask uint8 [count, height, width], nonzero is foreground:
// int32 [count, 4] x0, y0, x1, y1, the last two excluded; four times -1 for an empty mask. By the area inside the
// outer contour, or by pixels; the same boxes and ties as lidcam::components::Finder::largest. Two launches.
// `workspace`: of boxes_workspace(count, height, width) bytes or more; else memory is taken from the device's pool.
void launch_boxes(Stream stream, const uint8_t* mask, int64_t count, int height, int width, bool by_pixels,
                  int32_t* boxes, const Workspace& workspace = {});
size_t boxes_workspace(int64_t count, int height, int width);

// The same at the size of the original picture, without storing it: each map uint8 [count, map_height, map_width] is
// resized bilinearly to (height, width), as cv2.resize does, and the mask is resized > level[i].
void launch_boxes_at_size(Stream stream, const uint8_t* map, const float* level, int64_t count, int map_height,
                          int map_width, int height, int width, bool by_pixels, int32_t* boxes,
                          const Workspace& workspace = {});

}  // namespace lidcam::cuda
