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
  LevelBox largest;        // of the contour of the largest area; zeros where nothing is above the level
  int64_t twice_area = 0;  // twice that area (polygon through the centres of the boundary pixels)
  double iou_largest = 0;  // best IoU of `largest` with a ground-truth box (inclusive pixels)
  double iou_all = 0;      // best IoU over all contours, holes and islands included
  int32_t contours = 0;    // number of contours, holes included
};

// Best IoU of a box with a ground-truth box, inclusive pixels.
double best_iou(const LevelBox& box, const int64_t* truth, int boxes);

enum class Method {
  kAuto,  // kRuns or kTree, whichever the number of runs in the map makes faster
  kRuns,  // level by level: time grows with the runs of pixels, summed over the levels
  kTree,  // all levels at once: time grows with the pixels
};

// map: uint8 [height, width]; truth: [boxes, 4]. One result per level, -1 <= level <= 255. Both methods give the same.
std::vector<LevelResult> level_boxes(const uint8_t* map, int height, int width, const int32_t* levels, int count,
                                     const int64_t* truth, int boxes, Method method = Method::kAuto);

}  // namespace lidcam::metrics
