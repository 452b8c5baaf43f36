#include "components/components.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace lidcam::components {
namespace {

int root(std::vector<Run>& runs, int i) {
  while (runs[i].parent != i) {
    runs[i].parent = runs[runs[i].parent].parent;
    i = runs[i].parent;
  }
  return i;
}

void join(std::vector<Run>& runs, int a, int b) {
  a = root(runs, a);
  b = root(runs, b);
  if (a < b) runs[b].parent = a;
  else runs[a].parent = b;
}

int skip_zero(const uint8_t* row, int x, int width) {
  for (; x + 8 <= width; x += 8) {
    uint64_t word;
    std::memcpy(&word, row + x, 8);
    if (word) break;
  }
  while (x < width && !row[x]) ++x;
  return x;
}

int skip_set(const uint8_t* row, int x, int width) {
  constexpr uint64_t kOnes = 0x0101010101010101ull, kHigh = 0x8080808080808080ull;
  for (; x + 8 <= width; x += 8) {
    uint64_t word;
    std::memcpy(&word, row + x, 8);
    if ((word - kOnes) & ~word & kHigh) break;  // a zero byte
  }
  while (x < width && row[x]) ++x;
  return x;
}

constexpr int kDx[8] = {-1, -1, 0, 1, 1, 1, 0, -1};  // clockwise on the screen, from the left
constexpr int kDy[8] = {0, -1, -1, -1, 0, 1, 1, 1};

}  // namespace

const std::vector<Component>& Finder::find(const uint8_t* mask, int height, int width) {
  runs_.clear();
  components_.clear();
  size_t above = 0, above_end = 0;
  for (int y = 0; y < height; ++y) {
    const uint8_t* row = mask + size_t(y) * width;
    const size_t begin = runs_.size();
    size_t p = above;
    for (int x = skip_zero(row, 0, width); x < width;) {
      const int end = skip_set(row, x, width);
      const int self = int(runs_.size());
      runs_.push_back({y, x, end, self});
      while (p < above_end && runs_[p].x1 < x) ++p;  // 8 neighbours: a run that ends at x touches
      for (size_t q = p; q < above_end && runs_[q].x0 <= end; ++q) join(runs_, int(q), self);
      x = skip_zero(row, end, width);
    }
    above = begin;
    above_end = runs_.size();
  }
  number_.resize(runs_.size());
  for (size_t i = 0; i < runs_.size(); ++i) {
    const Run& r = runs_[i];
    const int top = root(runs_, int(i));
    if (top == int(i)) {
      number_[i] = int(components_.size());
      components_.push_back({r.x0, r.y, r.x1, r.y + 1, r.x0, r.y, r.x1 - r.x0});
      continue;
    }
    number_[i] = number_[top];
    Component& c = components_[number_[i]];
    c.x0 = std::min(c.x0, r.x0);
    c.x1 = std::max(c.x1, r.x1);
    c.y1 = std::max(c.y1, r.y + 1);
    c.pixels += r.x1 - r.x0;
  }
  return components_;
}

void Finder::paint(int32_t* labels, int height, int width) const {
  std::fill(labels, labels + size_t(height) * width, 0);
  for (size_t i = 0; i < runs_.size(); ++i) {
    int32_t* row = labels + size_t(runs_[i].y) * width;
    std::fill(row + runs_[i].x0, row + runs_[i].x1, number_[i] + 1);
  }
}

void Finder::paint_one(int index, uint8_t* out, int height, int width) const {
  std::memset(out, 0, size_t(height) * width);
  for (size_t i = 0; i < runs_.size(); ++i)
    if (number_[i] == index) std::memset(out + size_t(runs_[i].y) * width + runs_[i].x0, 1, runs_[i].x1 - runs_[i].x0);
}

int Finder::largest(const uint8_t* mask, int height, int width, bool by_pixels) const {
  int best = -1;
  int64_t most = -1;
  for (int i = int(components_.size()) - 1; i >= 0; --i) {
    const Component& c = components_[i];
    if (by_pixels) {
      if (c.pixels >= most) best = i, most = c.pixels;
      continue;
    }
    // The border lies within the box: most components need no tracing.
    if (2 * int64_t(c.x1 - c.x0 - 1) * (c.y1 - c.y0 - 1) <= most) continue;
    const int64_t area = twice_contour_area(mask, height, width, c.seed_x, c.seed_y);
    if (area > most) best = i, most = area;
  }
  return best;
}

int64_t twice_contour_area(const uint8_t* mask, int height, int width, int x, int y) {
  const auto set = [&](int px, int py) {
    return px >= 0 && py >= 0 && px < width && py < height && mask[size_t(py) * width + px];
  };
  // Suzuki and Abe (1985), step 3: the first neighbour clockwise from the left, then counterclockwise along the border.
  int first = 0;
  while (first < 8 && !set(x + kDx[first], y + kDy[first])) ++first;
  if (first == 8) return 0;
  const int last_x = x + kDx[first], last_y = y + kDy[first];
  int64_t sum = 0;
  int cx = x, cy = y, from = first;
  for (;;) {
    int d = from;
    do d = (d + 7) & 7;
    while (!set(cx + kDx[d], cy + kDy[d]));
    const int nx = cx + kDx[d], ny = cy + kDy[d];
    sum += int64_t(cx) * ny - int64_t(nx) * cy;
    if (nx == x && ny == y && cx == last_x && cy == last_y) break;
    from = (d + 4) & 7;
    cx = nx;
    cy = ny;
  }
  return std::llabs(sum);
}

}  // namespace lidcam::components
