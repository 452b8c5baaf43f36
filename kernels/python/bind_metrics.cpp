// lidcam_rt._kernels.metrics: what the evaluation needs of every pixel.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "metrics/histogram.h"
#include "metrics/level_boxes.h"

namespace nb = nanobind;
using namespace lidcam::metrics;

namespace {

template <typename T>
nb::ndarray<nb::numpy, T> owned(T* data, std::initializer_list<size_t> shape) {
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return nb::ndarray<nb::numpy, T>(data, shape, owner);
}

using Image = nb::ndarray<const uint8_t, nb::shape<-1, -1>, nb::c_contig, nb::device::cpu>;

}  // namespace

void bind_metrics(nb::module_& parent) {
  nb::module_ m = parent.def_submodule("metrics", "Counts and boxes for the evaluation.");
  m.def(
      "pair_histogram",
      [](Image map, Image mask) {
        if (map.shape(0) != mask.shape(0) || map.shape(1) != mask.shape(1))
          throw std::invalid_argument("map and mask differ in shape");
        auto* out = new int64_t[512];
        auto result = owned<int64_t>(out, {2, 256});
        bool allowed;
        {
          nb::gil_scoped_release release;
          allowed = pair_histogram(map.data(), mask.data(), map.size(), out);
        }
        if (!allowed) throw std::invalid_argument("the mask holds values other than 0, 1 and 255");
        return result;
      },
      nb::arg("map"), nb::arg("mask"));
  m.def(
      "level_boxes",
      [](Image map, nb::ndarray<const int32_t, nb::shape<-1>, nb::c_contig, nb::device::cpu> levels,
         nb::ndarray<const int64_t, nb::shape<-1, 4>, nb::c_contig, nb::device::cpu> truth,
         int method) {
        const size_t n = levels.shape(0);
        for (size_t i = 0; i < n; ++i)
          if (levels.data()[i] < -1 || levels.data()[i] > 255) throw std::invalid_argument("levels go from -1 to 255");
        if (method < 0 || method > 2) throw std::invalid_argument("method is 0 (auto), 1 (runs) or 2 (tree)");
        std::vector<LevelResult> found;
        {
          nb::gil_scoped_release release;
          found = level_boxes(map.data(), int(map.shape(0)), int(map.shape(1)), levels.data(), int(n), truth.data(),
                              int(truth.shape(0)), static_cast<Method>(method));
        }
        auto* boxes = new int32_t[4 * n + 1];
        auto* area = new int64_t[n + 1];
        auto* largest = new double[n + 1];
        auto* all = new double[n + 1];
        auto* number = new int32_t[n + 1];
        for (size_t i = 0; i < n; ++i) {
          const LevelResult& r = found[i];
          boxes[4 * i] = r.largest.x0;
          boxes[4 * i + 1] = r.largest.y0;
          boxes[4 * i + 2] = r.largest.x1;
          boxes[4 * i + 3] = r.largest.y1;
          area[i] = r.twice_area;
          largest[i] = r.iou_largest;
          all[i] = r.iou_all;
          number[i] = r.contours;
        }
        return nb::make_tuple(owned<int32_t>(boxes, {n, 4}), owned<int64_t>(area, {n}), owned<double>(largest, {n}),
                              owned<double>(all, {n}), owned<int32_t>(number, {n}));
      },
      nb::arg("map"), nb::arg("levels"), nb::arg("truth"), nb::arg("method") = 0);
}
