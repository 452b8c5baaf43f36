#include "metrics/level_boxes.h"

#include <algorithm>
#include <cstddef>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

// Per level: the foreground as runs, joined over rows with 8 neighbours. The contour area of a component without holes
// is local: between two rows that share n columns of a pair of runs there are n - 1 full cells of four pixel centres,
// and half a cell at each end where the runs do not begin (end) together. A link between runs that are joined already
// closes a hole; only then is the background (4 neighbours) joined too, and the area of each hole, with the islands in
// it, added to the component around it.
namespace lidcam::metrics {
namespace {

struct Run {
  int32_t x0, x1, y;  // columns x0..x1
};

struct Part {  // a component, at its root
  int32_t x0, y0, x1, y1;
  int64_t strips;  // twice the area of the cells between its runs
  int64_t pixels;
  int32_t first;   // its first run in reading order
  bool outside;    // background: touches the frame
};

struct Forest {
  std::vector<int32_t> parent;
  std::vector<Part> parts;

  int32_t root(int32_t i) {
    while (parent[i] != i) i = parent[i] = parent[parent[i]];
    return i;
  }
  // Joins b into a; returns the root and whether they were apart.
  bool join(int32_t a, int32_t b, int64_t strip) {
    a = root(a);
    b = root(b);
    if (a == b) {
      parts[a].strips += strip;
      return false;
    }
    if (b < a) std::swap(a, b);
    parent[b] = a;
    Part& p = parts[a];
    const Part& q = parts[b];
    p.x0 = std::min(p.x0, q.x0);
    p.y0 = std::min(p.y0, q.y0);
    p.x1 = std::max(p.x1, q.x1);
    p.y1 = std::max(p.y1, q.y1);
    p.strips += q.strips + strip;
    p.pixels += q.pixels;
    p.first = std::min(p.first, q.first);
    p.outside = p.outside || q.outside;
    return true;
  }
};

// Joins runs of neighbouring rows. reach 1: 8 neighbours, 0: 4. Returns the number of closed loops.
int32_t join_rows(const std::vector<Run>& runs, const std::vector<int32_t>& row_start, int height, int width,
                  int reach, Forest& forest) {
  const auto n = static_cast<int32_t>(runs.size());
  forest.parent.resize(n);
  forest.parts.resize(n);
  for (int32_t i = 0; i < n; ++i) {
    const Run& r = runs[i];
    forest.parent[i] = i;
    forest.parts[i] = Part{r.x0, r.y, r.x1, r.y, 0, r.x1 - r.x0 + 1, i,
                           r.x0 == 0 || r.x1 == width - 1 || r.y == 0 || r.y == height - 1};
  }
  int32_t loops = 0;
  for (int y = 0; y + 1 < height; ++y) {
    int32_t a = row_start[y], b = row_start[y + 1];
    const int32_t a_end = b, b_end = row_start[y + 2];
    while (a < a_end && b < b_end) {
      const Run &u = runs[a], &v = runs[b];
      const int32_t lo = std::max(u.x0, v.x0), hi = std::min(u.x1, v.x1);
      if (lo <= hi + reach) {
        const int64_t strip = lo <= hi ? 2 * int64_t{hi - lo} + (u.x0 != v.x0) + (u.x1 != v.x1) : 0;
        if (!forest.join(a, b, strip)) ++loops;
      }
      if (u.x1 < v.x1)
        ++a;
      else
        ++b;
    }
  }
  return loops;
}

class Levels {
 public:
  Levels(const uint8_t* map, int height, int width)
      : map_(map), height_(height), width_(width), words_((width + 63) / 64) {
    low_.resize(size_t(height) * words_);
    high_.resize(size_t(height) * words_);
    for (int y = 0; y < height; ++y)
      for (int k = 0; k < words_; ++k) {
        const uint8_t* p = map + size_t(y) * width + 64 * k;
        const int n = std::min(64, width - 64 * k);
        uint8_t lo = 255, hi = 0;
        for (int i = 0; i < n; ++i) {
          lo = std::min(lo, p[i]);
          hi = std::max(hi, p[i]);
        }
        low_[size_t(y) * words_ + k] = lo;
        high_[size_t(y) * words_ + k] = hi;
      }
  }

  LevelResult at(int level, const int64_t* truth, int boxes) {
    extract(level);
    LevelResult result;
    if (runs_.empty()) {
      result.iou_largest = result.iou_all = best_iou(result.largest, truth, boxes);
      return result;
    }
    const int32_t loops = join_rows(runs_, row_start_, height_, width_, 1, forest_);
    const auto n = static_cast<int32_t>(runs_.size());
    if (loops) fill_holes(truth, boxes, result);
    int64_t best = -1;
    for (int32_t i = 0; i < n; ++i) {
      if (forest_.parent[i] != i) continue;
      const Part& p = forest_.parts[i];
      const LevelBox box = clipped(p.x0, p.y0, p.x1, p.y1);
      ++result.contours;
      if (boxes) result.iou_all = std::max(result.iou_all, best_iou(box, truth, boxes));
      if (p.strips >= best) {  // OpenCV lists the contours from the last to the first: the last of equals wins
        best = p.strips;
        result.largest = box;
      }
    }
    result.twice_area = best;
    result.iou_largest = best_iou(result.largest, truth, boxes);
    return result;
  }

 private:
  LevelBox clipped(int32_t x0, int32_t y0, int32_t x1, int32_t y1) const {
    return {x0, y0, std::min(x1 + 1, width_ - 1), std::min(y1 + 1, height_ - 1)};
  }

  static double best_iou(const LevelBox& box, const int64_t* truth, int boxes) {
    double best = 0;
    for (int g = 0; g < boxes; ++g) {
      const int64_t* t = truth + 4 * g;
      const int64_t w = std::min<int64_t>(box.x1, t[2]) - std::max<int64_t>(box.x0, t[0]) + 1;
      const int64_t h = std::min<int64_t>(box.y1, t[3]) - std::max<int64_t>(box.y0, t[1]) + 1;
      const int64_t inter = std::max<int64_t>(w, 0) * std::max<int64_t>(h, 0);
      const int64_t area = int64_t{box.x1 - box.x0 + 1} * (box.y1 - box.y0 + 1);
      const int64_t whole = area + (t[2] - t[0] + 1) * (t[3] - t[1] + 1) - inter;
      if (whole > 0) best = std::max(best, double(inter) / double(whole));
    }
    return best;
  }

  uint64_t word(const uint8_t* p, int n, int level) const {
    uint64_t bits = 0;
    int i = 0;
#if defined(__SSE2__)
    const __m128i least = _mm_set1_epi8(static_cast<char>(level + 1));
    for (; i + 16 <= n; i += 16) {
      const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + i));
      const auto m = static_cast<uint32_t>(_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_max_epu8(v, least), v)));
      bits |= uint64_t{m} << i;
    }
#endif
    for (; i < n; ++i) bits |= uint64_t(p[i] > level) << i;
    return bits;
  }

  void extract(int level) {
    runs_.clear();
    row_start_.assign(size_t(height_) + 2, 0);
    for (int y = 0; y < height_; ++y) {
      row_start_[y] = static_cast<int32_t>(runs_.size());
      const uint8_t *lo = &low_[size_t(y) * words_], *hi = &high_[size_t(y) * words_];
      const uint8_t* line = map_ + size_t(y) * width_;
      int32_t open = -1;
      for (int k = 0; k < words_; ++k) {
        if (hi[k] <= level) {
          if (open >= 0) runs_.push_back({open, 64 * k - 1, y}), open = -1;
          continue;
        }
        if (lo[k] > level) {
          if (open < 0) open = 64 * k;
          continue;
        }
        const int n = std::min(64, width_ - 64 * k);
        const uint64_t bits = word(line + 64 * k, n, level);
        uint64_t edges = bits ^ (bits << 1 | uint64_t(open >= 0));
        while (edges) {
          const int i = __builtin_ctzll(edges);
          edges &= edges - 1;
          if (64 * k + i >= width_) break;
          if (open < 0) {
            open = 64 * k + i;
          } else {
            runs_.push_back({open, 64 * k + i - 1, y});
            open = -1;
          }
        }
      }
      if (open >= 0) runs_.push_back({open, width_ - 1, y});
    }
    row_start_[height_] = row_start_[height_ + 1] = static_cast<int32_t>(runs_.size());
  }

  // Adds the area of each hole and its islands to the component around it, and holds the hole's box against the truth.
  void fill_holes(const int64_t* truth, int boxes, LevelResult& result) {
    gaps_.clear();
    left_.clear();
    before_.resize(runs_.size());
    gap_start_.assign(size_t(height_) + 2, 0);
    for (int y = 0; y < height_; ++y) {
      gap_start_[y] = static_cast<int32_t>(gaps_.size());
      int32_t x = 0;
      for (int32_t r = row_start_[y]; r < row_start_[y + 1]; ++r) {
        before_[r] = -1;
        if (runs_[r].x0 > x) {
          before_[r] = static_cast<int32_t>(gaps_.size());
          gaps_.push_back({x, runs_[r].x0 - 1, y});
          left_.push_back(r - 1);
        }
        x = runs_[r].x1 + 1;
      }
      if (x < width_) gaps_.push_back({x, width_ - 1, y}), left_.push_back(row_start_[y + 1] - 1);
    }
    gap_start_[height_] = gap_start_[height_ + 1] = static_cast<int32_t>(gaps_.size());
    join_rows(gaps_, gap_start_, height_, width_, 0, ground_);
    const auto n = static_cast<int32_t>(gaps_.size());
    for (int32_t i = 0; i < n; ++i) {
      if (ground_.parent[i] != i || ground_.parts[i].outside) continue;
      const Part& hole = ground_.parts[i];
      forest_.parts[forest_.root(left_[hole.first])].strips += 4 * hole.pixels - hole.strips;
      ++result.contours;
      if (boxes) {  // its contour runs through the pixels around it
        const LevelBox box = clipped(hole.x0 - 1, hole.y0 - 1, hole.x1 + 1, hole.y1 + 1);
        result.iou_all = std::max(result.iou_all, best_iou(box, truth, boxes));
      }
    }
    // An island lies within the contour around its hole. Islands come later in reading order than what is around them.
    for (auto r = static_cast<int32_t>(runs_.size()) - 1; r >= 0; --r) {
      if (forest_.parent[r] != r || before_[r] < 0) continue;
      const Part& around = ground_.parts[ground_.root(before_[r])];
      if (!around.outside) forest_.parts[forest_.root(left_[around.first])].strips += forest_.parts[r].strips;
    }
  }

  const uint8_t* map_;
  int height_, width_, words_;
  std::vector<uint8_t> low_, high_;
  std::vector<Run> runs_, gaps_;
  std::vector<int32_t> row_start_, gap_start_, left_, before_;
  Forest forest_, ground_;
};

}  // namespace

std::vector<LevelResult> level_boxes(const uint8_t* map, int height, int width, const int32_t* levels, int count,
                                     const int64_t* truth, int boxes) {
  Levels image(map, height, width);
  std::vector<LevelResult> out(count), known(257);
  std::vector<bool> done(257, false);
  for (int i = 0; i < count; ++i) {
    const int slot = levels[i] + 1;
    if (!done[slot]) {
      known[slot] = image.at(levels[i], truth, boxes);
      done[slot] = true;
    }
    out[i] = known[slot];
  }
  return out;
}

}  // namespace lidcam::metrics
