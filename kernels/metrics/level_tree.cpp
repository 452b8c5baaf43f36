#include "metrics/level_tree.h"

#include <algorithm>
#include <cstddef>

// With the levels numbered 0..T-1 a pixel of rank r (levels below its value) is foreground at the levels 0..r-1. Each
// pass adds pixels level by level and joins them to components with union-find:
//   falling levels, 8 neighbours: the foreground's components, for their boxes;
//   rising levels, 4 neighbours: the background's, for the boxes of holes. Whatever is not joined to the frame is a
//     hole, so this pass also finds from which level down a pixel is foreground or enclosed by it (its filled rank);
//   falling levels of the filled rank, 8 neighbours: components without holes. The largest contour is always one of
//     them, since what lies within a contour has less area, and its area is local: half a cell for each block of 2x2
//     pixels with three of them, a cell for four.
// A box is valid over a run of levels, in which its component gains no pixel outside it; its IoU raises the maximum of
// all levels of that run at once.
namespace lidcam::metrics {
namespace {

// Maxima over ranges of levels: two writes per range, read once at the end.
class Maxima {
 public:
  explicit Maxima(int count) : count_(count) {
    int steps = 1;
    while ((1 << steps) <= count) ++steps;
    rows_.assign(steps, std::vector<double>(count, 0.0));
  }
  void raise(int first, int last, double value) {
    if (first > last) return;
    const int k = 31 - __builtin_clz(static_cast<unsigned>(last - first + 1));
    std::vector<double>& row = rows_[k];
    row[first] = std::max(row[first], value);
    double& other = row[last - (1 << k) + 1];
    other = std::max(other, value);
  }
  const std::vector<double>& finish() {
    for (size_t k = rows_.size() - 1; k > 0; --k)
      for (int i = 0; i + (1 << k) <= count_; ++i) {
        const double v = rows_[k][i];
        rows_[k - 1][i] = std::max(rows_[k - 1][i], v);
        double& other = rows_[k - 1][i + (1 << (k - 1))];
        other = std::max(other, v);
      }
    return rows_[0];
  }

 private:
  int count_;
  std::vector<std::vector<double>> rows_;
};

struct Node {  // a component, at its root
  int32_t x0, y0, x1, y1;
  int32_t size;
  int32_t since;  // level from which its box has been this one
  int64_t area;   // twice the area of its contour (third pass)
  double iou;     // of its box with the truth
  int32_t first;  // its first pixel in reading order (third pass)
};

class Tree {
 public:
  Tree(const uint8_t* map, int height, int width, const int32_t* levels, int count, const int64_t* truth, int boxes)
      : height_(height), width_(width), pitch_(width + 2), count_(count), truth_(truth), boxes_(boxes), best_(count) {
    const size_t padded = size_t(height + 2) * pitch_;
    uint16_t rank_of[256];
    for (int v = 0, r = 0; v < 256; ++v) {
      while (r < count && levels[r] < v) ++r;
      rank_of[v] = static_cast<uint16_t>(r);
    }
    rank_.assign(padded, 0);
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) rank_[at(x, y)] = rank_of[map[size_t(y) * width + x]];
    parent_.resize(padded + 1);
    node_.resize(padded + 1);
    seen_.resize(padded + 1);
    order_.resize(size_t(height) * width);
  }

  void run(LevelResult* out) {
    foreground(out);
    background(out);
    filled(out);
    const std::vector<double>& iou = best_.finish();
    for (int i = 0; i < count_; ++i) {
      const bool empty = out[i].contours == 0;
      out[i].iou_largest = best_iou(out[i].largest, truth_, boxes_);
      out[i].iou_all = empty ? out[i].iou_largest : iou[i];
    }
  }

 private:
  int32_t at(int x, int y) const { return (y + 1) * pitch_ + x + 1; }

  LevelBox clipped(int32_t x0, int32_t y0, int32_t x1, int32_t y1) const {
    return {x0, y0, std::min(x1 + 1, width_ - 1), std::min(y1 + 1, height_ - 1)};
  }

  // Pixels by rank, in reading order within a rank; bucket r is order_[start_[r]] to order_[start_[r + 1]].
  void sort(const std::vector<uint16_t>& rank) {
    start_.assign(size_t(count_) + 2, 0);
    for (int y = 0; y < height_; ++y)
      for (int x = 0; x < width_; ++x) ++start_[rank[at(x, y)] + 1];
    for (int r = 0; r <= count_; ++r) start_[r + 1] += start_[r];
    std::vector<int32_t> next(start_.begin(), start_.end() - 1);
    for (int y = 0; y < height_; ++y)
      for (int x = 0; x < width_; ++x) order_[next[rank[at(x, y)]]++] = at(x, y);
  }

  void reset() {
    std::fill(parent_.begin(), parent_.end(), -1);
    std::fill(seen_.begin(), seen_.end(), -1);
    touched_.clear();
  }

  int32_t root(int32_t i) {
    while (parent_[i] != i) i = parent_[i] = parent_[parent_[i]];
    return i;
  }

  void open(int32_t p, int level) {
    const int32_t y = p / pitch_ - 1, x = p % pitch_ - 1;
    parent_[p] = p;
    node_[p] = Node{x, y, x, y, 1, level, 0, 0.0, p};
    touch(p, level);
  }

  void touch(int32_t r, int level) {
    if (seen_[r] == level) return;
    seen_[r] = level;
    touched_.push_back(r);
  }

  // The levels over which a box was valid end before `level`; `step` is the pass's direction.
  void close(const Node& n, int level, int step) {
    if (step < 0)
      best_.raise(level + 1, n.since, n.iou);
    else
      best_.raise(n.since, level - 1, n.iou);
  }

  // Joins two roots; returns the new one.
  int32_t join(int32_t a, int32_t b, int level, int step) {
    if (node_[a].size < node_[b].size) std::swap(a, b);
    Node &p = node_[a], &q = node_[b];
    if (q.since != level) close(q, level, step);
    parent_[b] = a;
    p.size += q.size;
    if (q.x0 < p.x0 || q.y0 < p.y0 || q.x1 > p.x1 || q.y1 > p.y1) {
      if (p.since != level) {
        close(p, level, step);
        p.since = level;
      }
      p.x0 = std::min(p.x0, q.x0);
      p.y0 = std::min(p.y0, q.y0);
      p.x1 = std::max(p.x1, q.x1);
      p.y1 = std::max(p.y1, q.y1);
      touch(a, level);
    }
    return a;
  }

  void foreground(LevelResult* out) {
    reset();
    sort(rank_);
    const int32_t around[8] = {-pitch_ - 1, -pitch_, -pitch_ + 1, -1, 1, pitch_ - 1, pitch_, pitch_ + 1};
    int32_t number = 0;
    for (int level = count_ - 1; level >= 0; --level) {
      for (int32_t k = start_[level + 1]; k < start_[level + 2]; ++k) {
        const int32_t p = order_[k];
        open(p, level);
        ++number;
        int32_t r = p;
        for (const int32_t d : around) {
          if (parent_[p + d] < 0) continue;
          const int32_t other = root(p + d);
          if (other == r) continue;
          r = join(r, other, level, -1);
          --number;
        }
      }
      for (const int32_t r : touched_) {
        Node& n = node_[r];
        if (parent_[r] == r) n.iou = best_iou(clipped(n.x0, n.y0, n.x1, n.y1), truth_, boxes_);
      }
      touched_.clear();
      out[level].contours = number;
    }
    for (const int32_t p : order_)
      if (parent_[p] == p) close(node_[p], -1, -1);
  }

  void background(LevelResult* out) {
    reset();  // the order is that of the first pass
    const auto outside = static_cast<int32_t>(parent_.size()) - 1;
    ring_.resize(parent_.size());
    filled_.assign(rank_.size(), static_cast<uint16_t>(count_));
    parent_[outside] = outside;
    const int32_t around[4] = {-pitch_, -1, 1, pitch_};
    int32_t number = 0;
    for (int level = 0; level < count_; ++level) {
      for (int32_t k = start_[level]; k < start_[level + 1]; ++k) {
        const int32_t p = order_[k];
        open(p, level);
        ring_[p] = p;
        ++number;
        const Node& n = node_[p];
        int32_t r = p;
        if (n.x0 == 0 || n.y0 == 0 || n.x0 == width_ - 1 || n.y0 == height_ - 1) {
          leave(r, outside, level);
          r = outside;
          --number;
        }
        for (const int32_t d : around) {
          if (parent_[p + d] < 0) continue;
          const int32_t other = root(p + d);
          if (other == r) continue;
          --number;
          if (other == outside || r == outside) {
            leave(other == outside ? r : other, outside, level);
            r = outside;
          } else {
            std::swap(ring_[r], ring_[other]);  // two rings become one
            r = join(r, other, level, 1);
          }
        }
      }
      for (const int32_t r : touched_) {
        Node& n = node_[r];
        if (parent_[r] == r)  // the contour runs through the pixels around the hole
          n.iou = best_iou(clipped(n.x0 - 1, n.y0 - 1, n.x1 + 1, n.y1 + 1), truth_, boxes_);
      }
      touched_.clear();
      out[level].contours += number;
    }
    for (const int32_t p : order_)
      if (parent_[p] == p) close(node_[p], count_, 1);
  }

  // A hole is joined to the outside: its pixels are not filled from this level on.
  void leave(int32_t r, int32_t outside, int level) {
    if (node_[r].since != level) close(node_[r], level, 1);
    parent_[r] = outside;
    int32_t p = r;
    do {
      filled_[p] = static_cast<uint16_t>(level);
      p = ring_[p];
    } while (p != r);
  }

  void filled(LevelResult* out) {
    reset();
    sort(filled_);
    const int32_t around[8] = {-pitch_ - 1, -pitch_, -pitch_ + 1, -1, 1, pitch_ - 1, pitch_, pitch_ + 1};
    int64_t area = -1;
    std::vector<int32_t> largest;  // roots that had this area
    for (int level = count_ - 1; level >= 0; --level) {
      for (int32_t k = start_[level + 1]; k < start_[level + 2]; ++k) {
        const int32_t p = order_[k];
        const int32_t y = p / pitch_ - 1, x = p % pitch_ - 1;
        parent_[p] = p;
        node_[p] = Node{x, y, x, y, 1, level, 0, 0.0, p};
        int32_t r = p;
        unsigned there = 0;
        for (int j = 0; j < 8; ++j) {
          const int32_t q = p + around[j];
          if (parent_[q] < 0) continue;
          there |= 1u << j;
          const int32_t other = root(q);
          if (other == r) continue;
          int32_t a = r, b = other;
          if (node_[a].size < node_[b].size) std::swap(a, b);
          Node &m = node_[a], &n = node_[b];
          parent_[b] = r = a;
          m.size += n.size;
          m.area += n.area;
          m.first = std::min(m.first, n.first);
          m.x0 = std::min(m.x0, n.x0);
          m.y0 = std::min(m.y0, n.y0);
          m.x1 = std::max(m.x1, n.x1);
          m.y1 = std::max(m.y1, n.y1);
        }
        // Each of the four blocks of 2x2 around the pixel that has two or three others now gains half a cell.
        for (const unsigned block : {0x0bu, 0x16u, 0x68u, 0xd0u})
          node_[r].area += __builtin_popcount(there & block) >= 2;
        if (node_[r].area > area) {
          area = node_[r].area;
          largest.clear();
        }
        if (node_[r].area == area) largest.push_back(r);
      }
      if (largest.empty()) continue;
      // Of equal areas the one whose first pixel comes last, which OpenCV lists first.
      size_t kept = 0;
      int32_t chosen = -1;
      for (const int32_t r : largest) {
        if (parent_[r] != r || node_[r].area != area || seen_[r] == level) continue;
        seen_[r] = level;
        largest[kept++] = r;
        if (chosen < 0 || node_[r].first > node_[chosen].first) chosen = r;
      }
      largest.resize(kept);
      const Node& n = node_[chosen];
      out[level].largest = clipped(n.x0, n.y0, n.x1, n.y1);
      out[level].twice_area = area;
    }
  }

  int height_, width_, pitch_, count_;
  const int64_t* truth_;
  int boxes_;
  Maxima best_;
  std::vector<uint16_t> rank_, filled_;
  std::vector<int32_t> parent_, seen_, order_, start_, ring_, touched_;
  std::vector<Node> node_;
};

}  // namespace

void level_tree(const uint8_t* map, int height, int width, const int32_t* levels, int count, const int64_t* truth,
                int boxes, LevelResult* out) {
  if (count) Tree(map, height, width, levels, count, truth, boxes).run(out);
}

}  // namespace lidcam::metrics
