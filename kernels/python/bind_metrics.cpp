// lidcam_rt._kernels.metrics: what the evaluation needs of every pixel.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <stdexcept>

#include "metrics/histogram.h"
#include "metrics/level_boxes.h"
#include "python/arrays.h"

namespace nb = nanobind;
using namespace lidcam::metrics;
using lidcam::python::new_array;

namespace {

using Image = nb::ndarray<const uint8_t, nb::shape<-1, -1>, nb::c_contig, nb::device::cpu>;

}  // namespace

void bind_metrics(nb::module_& parent) {
  nb::module_ m = parent.def_submodule("metrics", "Counts and boxes for the evaluation.");
  m.def(
      "pair_histogram",
      [](Image map, Image mask) {
        if (map.shape(0) != mask.shape(0) || map.shape(1) != mask.shape(1))
          throw std::invalid_argument("map and mask differ in shape");
        auto result = new_array<int64_t>({2, 256});
        bool allowed;
        {
          nb::gil_scoped_release release;
          allowed = pair_histogram(map.data(), mask.data(), map.size(), result.data());
        }
        if (!allowed) throw std::invalid_argument("the mask holds values other than 0, 1 and 255");
        return result;
      },
      nb::arg("map"), nb::arg("mask"));
  m.def(
      "level_boxes",
      [](Image map, nb::ndarray<const int32_t, nb::shape<-1>, nb::c_contig, nb::device::cpu> levels,
         nb::ndarray<const int64_t, nb::shape<-1, 4>, nb::c_contig, nb::device::cpu> truth, int method) {
        // Copies: another thread may write to the arrays once the lock is released.
        const size_t n = levels.shape(0);
        const std::vector<int32_t> wanted(levels.data(), levels.data() + n);
        const std::vector<int64_t> boxes_given(truth.data(), truth.data() + truth.size());
        for (const int32_t level : wanted)
          if (level < -1 || level > 255) throw std::invalid_argument("levels go from -1 to 255");
        if (method < 0 || method > 2) throw std::invalid_argument("method is 0 (auto), 1 (runs) or 2 (tree)");
        std::vector<LevelResult> results;
        {
          nb::gil_scoped_release release;
          results = level_boxes(map.data(), int(map.shape(0)), int(map.shape(1)), wanted.data(), int(n),
                                boxes_given.data(), int(truth.shape(0)), static_cast<Method>(method));
        }
        auto boxes = new_array<int32_t>({n, 4}), contours = new_array<int32_t>({n});
        auto area = new_array<int64_t>({n});
        auto iou_largest = new_array<double>({n}), iou_all = new_array<double>({n});
        for (size_t i = 0; i < n; ++i) {
          const LevelResult& r = results[i];
          const int32_t box[4] = {r.largest.x0, r.largest.y0, r.largest.x1, r.largest.y1};
          std::copy(box, box + 4, boxes.data() + 4 * i);
          area.data()[i] = r.twice_area;
          iou_largest.data()[i] = r.iou_largest;
          iou_all.data()[i] = r.iou_all;
          contours.data()[i] = r.contours;
        }
        return nb::make_tuple(boxes, area, iou_largest, iou_all, contours);
      },
      nb::arg("map"), nb::arg("levels"), nb::arg("truth"), nb::arg("method") = 0);
}
