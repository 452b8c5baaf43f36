// The same as level_boxes, in time that does not depend on the number of levels: for noisy maps.
#pragma once
#include "metrics/level_boxes.h"

namespace lidcam::metrics {

// levels: ascending, no two equal. out: one result per level.
void level_tree(const uint8_t* map, int height, int width, const int32_t* levels, int count, const int64_t* truth,
                int boxes, LevelResult* out);

}  // namespace lidcam::metrics
