#include "components/components.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "cpu/bytes.h"

namespace lidcam::components {
namespace {

int root(std::vector<Run>& runs, int i) {
  while (runs[i].parent != i) {
    runs[i].parent = runs[runs[i].parent].parent;
    i = runs[i].parent;
  }
  return i;
}

constexpr int kDx[8] = {-1, -1, 0, 1, 1, 1, 0, -1};  // clockwise on the screen, from the left
constexpr int kDy[8] = {0, -1, -1, -1, 0, 1, 1, 1};

}  // namespace

const std::vector<Component>& Finder::find(const uint8_t* mask, int height, int width) {
  runs_.clear();
  components_.clear();
  size_t above = 0, above_end = 0;
  const int words = (width + 63) / 64;
  const cpu::ByteKernels& kernels = cpu::byte_kernels();
  bits_.resize(words);
  edges_.resize(size_t(width) + 2);
  for (int y = 0; y < height; ++y) {
    kernels.row_at_least(mask + size_t(y) * width, width, 1, bits_.data());
    // Where the row changes: begins and ends of runs in turn.
    int* edge = edges_.data();
    uint64_t last = 0;
    for (int i = 0; i < words; ++i) {
      const uint64_t word = bits_[i];
      for (uint64_t change = word ^ (word << 1 | last); change; change &= change - 1)
        *edge++ = 64 * i + __builtin_ctzll(change);
      last = word >> 63;
    }
    if ((edge - edges_.data()) & 1) *edge++ = width;
    const size_t begin = runs_.size();
    size_t p = above;
    for (const int* e = edges_.data(); e < edge; e += 2) {
      const int x = e[0], end = e[1], self = int(runs_.size());
      while (p < above_end && runs_[p].x1 < x) ++p;  // 8 neighbours: a run that ends at x touches
      int top = self;
      for (size_t q = p; q < above_end && runs_[q].x0 <= end; ++q) {
        const int other = root(runs_, int(q));
        if (other == top) continue;
        if (top != self) runs_[std::max(other, top)].parent = std::min(other, top);
        top = std::min(other, top);
      }
      runs_.push_back({y, x, end, top});
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

void Finder::trim(size_t bytes) {
  const size_t held =
      runs_.capacity() * sizeof(Run) + number_.capacity() * sizeof(int) + components_.capacity() * sizeof(Component);
  if (held > bytes) *this = Finder();
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
  const int n = int(components_.size());
  if (n < 2) return n - 1;
  // The border lies within the box: with the component of the largest box traced first, few others need it.
  const auto measure = [&](const Component& c, bool bound) {
    if (by_pixels) return c.pixels;
    if (bound) return 2 * int64_t(c.x1 - c.x0 - 1) * (c.y1 - c.y0 - 1);
    return twice_contour_area(mask, height, width, c.seed_x, c.seed_y);
  };
  int best = 0;
  int64_t bound = measure(components_[0], true);
  for (int i = 1; i < n; ++i)
    if (const int64_t other = measure(components_[i], true); other > bound) best = i, bound = other;
  if (by_pixels) return best;
  const int traced = best;
  int64_t largest = measure(components_[best], false);
  for (int i = n - 1; i >= 0; --i) {
    if (i == traced || measure(components_[i], true) < largest) continue;
    const int64_t area = measure(components_[i], false);
    if (area > largest || (area == largest && i > best)) best = i, largest = area;
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
  // A border enters each pixel from each side at most once. The limits only matter where another thread changes the
  // mask.
  for (int64_t steps = 8 * int64_t(height) * width; steps > 0; --steps) {
    int d = from, tries = 0;
    do d = (d + 7) & 7;
    while (!set(cx + kDx[d], cy + kDy[d]) && ++tries < 8);
    if (tries == 8) break;
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
