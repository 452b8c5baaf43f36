// Connected components (8 neighbours) of a byte mask, by runs and union-find.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace lidcam::components {

struct Component {
  int x0, y0, x1, y1;  // half-open box
  int seed_x, seed_y;  // its first pixel in scan order
  int64_t pixels;
};

struct Run {
  int y, x0, x1, parent;  // x1 excluded; parent is the index of a run with a smaller or equal index
};

// Reusable: a second call allocates nothing unless the mask has more runs than any before.
class Finder {
 public:
  // Components in scan order of their first pixel.
  const std::vector<Component>& find(const uint8_t* mask, int height, int width);
  // Releases the memory if it is more than this many bytes.
  void trim(size_t bytes);
  // After find: labels int32 [height, width], 0 for the background, components numbered from 1 in scan order.
  void paint(int32_t* labels, int height, int width) const;
  // After find: the component of the largest external contour (cv2.contourArea) or, if by_pixels, with most pixels;
  // -1 for none. Ties: the last in scan order by contour (the first that cv2.findContours lists), the first by pixels.
  int largest(const uint8_t* mask, int height, int width, bool by_pixels) const;
  // After find: 1 at the pixels of one component, 0 elsewhere.
  void paint_one(int index, uint8_t* out, int height, int width) const;

 private:
  std::vector<uint64_t> bits_;  // of one row
  std::vector<int> edges_;      // of one row
  std::vector<Run> runs_;
  std::vector<int> number_;  // component of every run
  std::vector<Component> components_;
};

// Twice the area of the polygon through the pixel centres of the outer border that starts at (x, y).
int64_t twice_contour_area(const uint8_t* mask, int height, int width, int x, int y);

}  // namespace lidcam::components
