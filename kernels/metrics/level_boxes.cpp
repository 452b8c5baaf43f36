#include "metrics/level_boxes.h"

#include <algorithm>
#include <cstddef>

#include "cpu/bytes.h"
#include "cpu/float_mode.h"
#include "metrics/level_tree.h"

// Per level: the foreground as runs, joined over rows with 8 neighbours. The contour area of a component without holes
// is local: between two rows that share n columns of a pair of runs there are n - 1 full cells of four pixel centres,
// and half a cell at each end where the runs do not begin (end) together. A link between runs that are joined already
// closes a hole; only then is the background (4 neighbours) joined too, and the area of each hole, with the islands in
// it, added to the component around it.
namespace lidcam::metrics {
namespace {

constexpr int64_t kRunsPerPixel = 4;

struct Run {
  int32_t x0, x1, y;  // columns x0..x1
};

struct Part {  // a component, at its root
  int32_t x0, y0, x1, y1;
  int64_t strips;  // twice the area of the cells between its runs
  int64_t pixels;
  int32_t first;  // its first run in reading order
  bool outside;   // background: touches the frame
};

// Components of runs. They are numbered in reading order of their first runs, and the smallest number is the root.
struct Forest {
  std::vector<int32_t> label;  // of each run: a component
  std::vector<int32_t> parent;
  std::vector<Part> parts;

  int32_t root(int32_t i) {
    while (parent[i] != i) i = parent[i] = parent[parent[i]];
    return i;
  }
  int32_t root_of_run(int32_t run) { return root(label[run]); }

  void open(int32_t run, const Run& r, bool outside) {
    const auto c = static_cast<int32_t>(parts.size());
    label[run] = c;
    parent.push_back(c);
    parts.push_back(Part{r.x0, r.y, r.x1, r.y, 0, r.x1 - r.x0 + 1, run, outside});
  }
  // The run below belongs to the component of a run above it.
  void extend(int32_t above, int32_t run, const Run& r, bool outside, int64_t strip) {
    const int32_t c = root(label[above]);
    label[run] = c;
    Part& p = parts[c];
    p.x0 = std::min(p.x0, r.x0);
    p.x1 = std::max(p.x1, r.x1);
    p.y1 = r.y;
    p.strips += strip;
    p.pixels += r.x1 - r.x0 + 1;
    p.outside = p.outside || outside;
  }
  // Joins the components of two runs; returns whether they were apart.
  bool join(int32_t run, int32_t other, int64_t strip) {
    int32_t a = root(label[run]), b = root(label[other]);
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
    p.outside = p.outside || q.outside;
    return true;
  }
};

// Joins runs of neighbouring rows. reach 1: 8 neighbours, 0: 4. Returns the number of closed loops.
int32_t join_rows(const std::vector<Run>& runs, const std::vector<int32_t>& row_start, int height, int width, int reach,
                  Forest& forest) {
  forest.label.resize(runs.size());
  forest.parent.clear();
  forest.parts.clear();
  int32_t loops = 0;
  for (int y = 0; y < height; ++y) {
    int32_t a = y ? row_start[y - 1] : 0, b = row_start[y];
    const int32_t a_end = y ? b : 0, b_end = row_start[y + 1];
    const bool edge = y == 0 || y == height - 1;
    for (; b < b_end; ++b) {
      const Run& v = runs[b];
      const bool outside = edge || v.x0 == 0 || v.x1 == width - 1;
      bool known = false;
      while (a < a_end && runs[a].x0 <= v.x1 + reach) {
        const Run& u = runs[a];
        const int32_t lo = std::max(u.x0, v.x0), hi = std::min(u.x1, v.x1);
        if (lo <= hi + reach) {
          const int64_t strip = lo <= hi ? 2 * int64_t{hi - lo} + (u.x0 != v.x0) + (u.x1 != v.x1) : 0;
          if (!known)
            forest.extend(a, b, v, outside, strip);
          else if (!forest.join(a, b, strip))
            ++loops;
          known = true;
        }
        if (u.x1 > v.x1) break;  // it may reach the next run too
        ++a;
      }
      if (!known) forest.open(b, v, outside);
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
    if (loops) fill_holes(truth, boxes, result);
    const auto n = static_cast<int32_t>(forest_.parts.size());
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

  void extract(int level) {
    const cpu::ByteKernels& kernels = cpu::byte_kernels();
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
        uint64_t bits;  // of pixels above the level; no word is mixed at level 255
        kernels.row_at_least(line + 64 * k, n, static_cast<uint8_t>(level + 1), &bits);
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

  // Adds the area of each hole and its islands to the component around it, and compares the hole's box with the truth.
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
    const auto n = static_cast<int32_t>(ground_.parts.size());
    for (int32_t i = 0; i < n; ++i) {
      if (ground_.parent[i] != i || ground_.parts[i].outside) continue;
      const Part& hole = ground_.parts[i];
      forest_.parts[forest_.root_of_run(left_[hole.first])].strips += 4 * hole.pixels - hole.strips;
      ++result.contours;
      if (boxes) {  // its contour runs through the pixels around it
        const LevelBox box = clipped(hole.x0 - 1, hole.y0 - 1, hole.x1 + 1, hole.y1 + 1);
        result.iou_all = std::max(result.iou_all, best_iou(box, truth, boxes));
      }
    }
    // An island lies within the contour around its hole. Islands come later in reading order than what is around them.
    for (auto c = static_cast<int32_t>(forest_.parts.size()) - 1; c >= 0; --c) {
      const int32_t gap = before_[forest_.parts[c].first];
      if (forest_.parent[c] != c || gap < 0) continue;
      const Part& around = ground_.parts[ground_.root_of_run(gap)];
      if (!around.outside) forest_.parts[forest_.root_of_run(left_[around.first])].strips += forest_.parts[c].strips;
    }
  }

  const uint8_t* map_;
  int height_, width_, words_;
  std::vector<uint8_t> low_, high_;
  std::vector<Run> runs_, gaps_;
  std::vector<int32_t> row_start_, gap_start_, left_, before_;
  Forest forest_, ground_;
};

// Whether the map has more runs, at all levels together, than the tree is worth: judged by every fourth row. A run ends
// where the rank falls from a pixel to its right neighbour.
bool is_noisy(const uint8_t* map, int height, int width, const std::vector<int32_t>& levels) {
  int16_t rank[256];
  for (int v = 0; v < 256; ++v)
    rank[v] = static_cast<int16_t>(std::lower_bound(levels.begin(), levels.end(), v) - levels.begin());
  int64_t runs = 0, pixels = 0;
  for (int y = 0; y < height; y += 4) {
    const uint8_t* line = map + size_t(y) * width;
    int32_t falls = rank[line[width - 1]];
    for (int x = 0; x + 1 < width; ++x) falls += std::max(rank[line[x]] - rank[line[x + 1]], 0);
    runs += falls;
    pixels += width;
  }
  return runs > kRunsPerPixel * pixels;
}

}  // namespace

double best_iou(const LevelBox& box, const int64_t* truth, int boxes) {
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

std::vector<LevelResult> level_boxes(const uint8_t* map, int height, int width, const int32_t* levels, int count,
                                     const int64_t* truth, int boxes, Method method) {
  const cpu::FloatMode mode(cpu::Subnormals::keep);
  std::vector<int32_t> distinct(levels, levels + count);
  std::sort(distinct.begin(), distinct.end());
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  std::vector<LevelResult> known(distinct.size());
  if (method == Method::kAuto) method = is_noisy(map, height, width, distinct) ? Method::kTree : Method::kRuns;
  if (method == Method::kTree) {
    level_tree(map, height, width, distinct.data(), static_cast<int>(distinct.size()), truth, boxes, known.data());
  } else {
    Levels image(map, height, width);
    for (size_t i = 0; i < distinct.size(); ++i) known[i] = image.at(distinct[i], truth, boxes);
  }
  std::vector<LevelResult> out(count);
  for (int i = 0; i < count; ++i)
    out[i] = known[std::lower_bound(distinct.begin(), distinct.end(), levels[i]) - distinct.begin()];
  return out;
}

}  // namespace lidcam::metrics
