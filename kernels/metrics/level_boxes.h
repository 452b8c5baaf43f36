// Boxes of the contours of {map > level} for many levels of one map, without tracing a contour.
#pragma once
#include <cstdint>
#include <vector>

namespace lidcam::metrics {

// x0, y0, x1, y1 with x1 = min(x + width, W - 1), y1 likewise, as the public WSOL evaluator writes them.
struct LevelBox {
  int32_t x0 = 0, y0 = 0, x1 = 0, y1 = 0;
};

struct LevelResult {
  LevelBox largest;         // of the contour of the largest area; zeros where nothing is above the level
  int64_t twice_area = 0;   // twice that area (polygon through the centres of the boundary pixels)
  double iou_largest = 0;   // best IoU of `largest` with a ground-truth box (inclusive pixels)
  double iou_all = 0;       // best IoU over all contours, holes and islands included
  int32_t contours = 0;     // number of contours, holes included
};

// map: uint8 [height, width]; truth: [boxes, 4]. One result per level, -1 <= level <= 255.
std::vector<LevelResult> level_boxes(const uint8_t* map, int height, int width, const int32_t* levels, int count,
                                     const int64_t* truth, int boxes);

}  // namespace lidcam::metrics
