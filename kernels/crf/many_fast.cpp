#include "crf/many_fast.h"

#include <algorithm>
#include <cstring>

namespace lidcam::crf {
namespace {

constexpr int kAcross = 32;                        // largest number of pixels in a line of a tile
constexpr int kRegionAcross = 4, kRegionDown = 8;  // tiles

// The length of the parts of `whole` if they are as even as possible and at most `limit` long.
int even_part(int64_t whole, int limit) {
  const int64_t parts = (whole + limit - 1) / limit;
  return int((whole + parts - 1) / parts);
}

// Copies row `from` of one block to row `to` of another.
void move_row(const float* in, int from, float* out, int to, int width, int block) {
  int part = 0;
  for (; part + 16 <= width; part += 16)
    std::memcpy(out + part * block + 16 * to, in + part * block + 16 * from, 16 * sizeof(float));
  if (part < width) std::memcpy(out + part * block + 8 * to, in + part * block + 8 * from, 8 * sizeof(float));
}

}  // namespace

bool ManyFast::fits(int labels, int64_t pixels) { return size_t(labels + 7) * size_t(pixels) <= kStoredRows; }

ManyFast::ManyFast(const float* unary, int labels, int64_t pixels, int line, const std::vector<Term>& given, bool keep)
    : run_(kernels().many_fast),
      labels_(labels),
      width_((labels + 7) / 8 * 8),
      line_(line),
      across_(even_part(line, kAcross)),
      down_(even_part(pixels / line, (width_ <= 32 ? kRows : kRows / 4) / across_)),
      block_((across_ * down_ + 7) / 8 * 8),
      n_(pixels),
      stores_(given.size()),
      terms_(given.size()),
      rows_(size_t(block_) * width_),
      sorted_(size_t(block_) * width_),
      planes_(size_t(block_) * width_),
      scratch_(size_t(width_) * 2) {
  const int64_t lines = n_ / line_;
  // Neighbouring tiles are processed one after another, since they share vertices.
  const int high = kRegionDown * down_, wide = kRegionAcross * across_;
  for (int64_t top = 0; top < lines; top += high)
    for (int left = 0; left < line_; left += wide)
      for (int64_t y = top; y < std::min(lines, top + high); y += down_)
        for (int x = left; x < std::min(line_, left + wide); x += across_)
          patches_.push_back({y * line_ + x, std::min(across_, line_ - x), int(std::min<int64_t>(down_, lines - y))});
  std::vector<Term> terms = given;
  std::stable_sort(terms.begin(), terms.end(),
                   [](const Term& a, const Term& b) { return a.lattice->dimension > b.lattice->dimension; });
  for (const Term& t : terms) lattices_.push_back(t.lattice.get());
  order_.allocate(patches_.size() * block_);
  for (size_t i = 0; i < terms.size(); ++i) {
    Buffer<int32_t> seen(size_t(lattices_[i]->simplices) *
                         2);  // per simplex: the last tile that had it, its group in that tile
    seen.fill(-1);
    const int corners = lattices_[i]->corners;
    corners == 3   ? serve<3>(terms[i], i, seen.data())
    : corners == 6 ? serve<6>(terms[i], i, seen.data())
                   : serve<0>(terms[i], i, seen.data());
  }
  load(unary);
  if (keep) {
    kept_.allocate(patches_.size() * block_ * width_);
    kept_.fill(0);
  }
}

// Sorts the pixels of each tile by simplex, larger groups first, which makes the lengths of loops predictable.
template <int K>
void ManyFast::serve(const Term& given, size_t i, int32_t* seen) {
  const Lattice& t = *given.lattice;
  Store& s = stores_[i];
  TileTerm& f = terms_[i];
  const int corners = K ? K : t.corners, stride = corners + 2;
  const size_t slots = patches_.size() * block_;
  const bool even = t.before == t.after, before = t.before, leads = i == 0;
  s.values.allocate((size_t(t.vertices) + 1) * width_);
  s.spare.allocate((size_t(t.vertices) + 1) * width_);
  s.weights.allocate(slots * corners);
  if (!even) s.ratios.allocate(slots);
  if (!leads) s.slots.allocate(slots);
  s.lengths.allocate(size_t(n_));
  s.corners.allocate(size_t(n_) * corners);
  int64_t runs = 0;
  for (size_t b = 0; b < patches_.size(); ++b) {
    cpu::check_stop();
    const Patch& patch = patches_[b];
    const float* records[kRows];
    int count = 0;
    for (int y = 0; y < patch.height; ++y) {
      const float* record = t.record.data() + (patch.pixel + int64_t(y) * line_) * stride;
      for (int x = 0; x < patch.width; ++x, record += stride) records[count++] = record;
    }
    int32_t of[kRows], simplex[kRows], length[kRows], start[kRows + 2] = {}, place[kRows];
    uint16_t* order = order_.data() + b * block_;
    int groups = 0;
    for (int p = 0; p < count; ++p) {
      int32_t id;
      std::memcpy(&id, records[leads ? p : order[p]] + corners + 1, 4);
      int32_t* mark = seen + 2 * size_t(id);
      if (mark[0] != int32_t(b)) {
        mark[0] = int32_t(b);
        mark[1] = groups;
        simplex[groups] = id;
        length[groups++] = 0;
      }
      of[p] = mark[1];
      ++length[mark[1]];
    }
    // start[k]: how many groups have more than k pixels.
    for (int g = 0; g < groups; ++g) ++start[length[g] - 1];
    for (int k = count - 1; k >= 0; --k) start[k] += start[k + 1];
    int32_t sorted[kRows];
    for (int g = 0; g < groups; ++g) sorted[start[length[g]]++] = g;
    s.runs.push_back(runs);
    int at = 0;
    for (int r = 0; r < groups; ++r, ++runs) {
      const int g = sorted[r];
      place[g] = at;
      at += s.lengths[runs] = length[g];
      for (int k = 0; k < corners; ++k) s.corners[runs * corners + k] = t.corner[size_t(simplex[g]) * corners + k];
    }
    for (int p = 0; p < count; ++p) {
      const int to = place[of[p]]++;
      const size_t slot = b * block_ + to;
      const float* record = records[leads ? p : order[p]];
      const float norm = record[corners], scale = before ? norm : 1.0f;
      for (int k = 0; k < corners; ++k) s.weights[slot * corners + k] = record[k] * scale;
      if (!even) s.ratios[slot] = before ? 1.0f / norm : norm;
      if (!leads) s.slots[slot] = uint16_t(p);
      of[p] = to;
    }
    if (leads)
      for (int p = 0; p < count; ++p) order[of[p]] = uint16_t(p);
  }
  s.runs.push_back(runs);
  s.compat.set(given.compat, labels_, width_);
  for (int l = 0; l < width_; ++l) s.compat.factor[l] *= t.alpha;
  f.corners = corners;
  f.vertices = size_t(t.vertices);
  f.weights = s.weights.data();
  f.ratios = even ? nullptr : s.ratios.data();
  f.slots = leads ? nullptr : s.slots.data();
  f.values = s.values.data();
  f.spare = s.spare.data();
}

void ManyFast::load(const float* unary) {
  energy_.allocate(patches_.size() * block_ * width_);
  for (size_t b = 0; b < patches_.size(); ++b) {
    cpu::check_stop();
    const Patch& patch = patches_[b];
    const int count = patch.width * patch.height;
    for (int l = 0; l < labels_; ++l)
      for (int y = 0; y < patch.height; ++y)
        std::memcpy(planes_.data() + l * block_ + y * patch.width, unary + l * n_ + patch.pixel + int64_t(y) * line_,
                    size_t(patch.width) * 4);
    kernels().rows.interleave(planes_.data(), block_, labels_, count, -1.0f, kPadding, width_, block_, rows_.data());
    float* energy = energy_.data() + b * block_ * width_;
    const uint16_t* order = order_.data() + b * block_;
    for (int p = 0; p < count; ++p) move_row(rows_.data(), order[p], energy, p, width_, block_);
  }
}

// Writes the marginals in rows_ to q [labels, n].
void ManyFast::write(size_t b, float* q) {
  const Patch& patch = patches_[b];
  const int count = patch.width * patch.height;
  const uint16_t* order = order_.data() + b * block_;
  for (int p = 0; p < count; ++p) move_row(rows_.data(), p, sorted_.data(), order[p], width_, block_);
  kernels().rows.separate(sorted_.data(), width_, labels_, block_, count, block_, planes_.data());
  for (int l = 0; l < labels_; ++l)
    for (int y = 0; y < patch.height; ++y)
      std::memcpy(q + l * n_ + patch.pixel + int64_t(y) * line_, planes_.data() + l * block_ + y * patch.width,
                  size_t(patch.width) * 4);
}

Tile ManyFast::tile(size_t i, size_t b) const {
  const Store& s = stores_[i];
  const int64_t first = s.runs[b];
  return {int64_t(b) * block_, int(s.runs[b + 1] - first), s.lengths.data() + first,
          s.corners.data() + first * terms_[i].corners};
}

float ManyFast::step(bool first, float* q) {
  if (!q)
    for (TileTerm& f : terms_) std::fill_n(f.spare, (f.vertices + 1) * width_, 0.0f);
  float change = 0;
  for (size_t b = 0; b < patches_.size(); ++b) {
    cpu::check_stop();
    const Patch& patch = patches_[b];
    const int count = patch.width * patch.height;
    float* rows = rows_.data();
    const float* energy = energy_.data() + b * block_ * width_;
    if (first)
      std::memcpy(rows, energy, size_t(block_) * width_ * 4);
    else
      for (size_t i = 0; i < terms_.size(); ++i)
        run_.slice(terms_[i], tile(i, b), width_, block_, i ? rows : energy, rows);
    run_.softmax(rows, width_, block_, count);
    if (!kept_.empty())
      change = std::max(change, keep_rows(rows, kept_.data() + b * block_ * width_, width_, block_, count));
    if (q)
      write(b, q);
    else
      for (size_t i = 0; i < terms_.size(); ++i) run_.splat(terms_[i], tile(i, b), width_, block_, rows);
  }
  return change;
}

void ManyFast::message() {
  for (size_t i = 0; i < terms_.size(); ++i) {
    TileTerm& f = terms_[i];
    const Compat& compat = stores_[i].compat;
    const Lattice& t = *lattices_[i];
    float* const blurred =
        blur_rows(t, width_, f.spare, f.values,
                  [&](int axis, int64_t first, int64_t count, int part, int lanes, const float* from, float* to) {
                    run_.blur(t, axis, first, count, lanes, compat.factor.data() + part, from, to);
                  });
    if (blurred != f.values) std::swap(f.values, f.spare);
    compat.apply(f.values, t, labels_, width_, scratch_.data());
  }
}

}  // namespace lidcam::crf
