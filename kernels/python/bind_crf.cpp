// lidcam_rt._kernels.crf: lattices and mean field. Arguments are checked in lidcam_rt.crf.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "crf/mean_field.h"

namespace nb = nanobind;
using namespace lidcam::crf;

void bind_crf(nb::module_& parent) {
  nb::module_ m = parent.def_submodule("crf", "Permutohedral lattice and mean field.");
  using Array = nb::ndarray<const float, nb::shape<-1, -1>, nb::c_contig, nb::device::cpu>;
  nb::class_<Lattice>(m, "Lattice")
      .def_ro("pixels", &Lattice::pixels)
      .def_ro("vertices", &Lattice::vertices)
      .def_ro("simplices", &Lattice::simplices);
  m.def(
      "lattice",
      [](Array features, int normalization) {
        if (features.shape(0) == 0 || features.shape(0) > (size_t(1) << 30)) throw std::invalid_argument("pixel count");
        if (normalization < 0 || normalization > 3) throw std::invalid_argument("normalization is 0 to 3");
        nb::gil_scoped_release release;
        return make_lattice(features.data(), int64_t(features.shape(0)), int(features.shape(1)), Normalization(normalization));
      },
      nb::arg("features"), nb::arg("normalization") = 3);
  m.def(
      "filter",
      [](const std::shared_ptr<Lattice>& lattice, Array values) {
        const size_t channels = values.shape(0), pixels = values.shape(1);
        if (!lattice || size_t(lattice->pixels) != pixels) throw std::invalid_argument("values have another pixel count");
        auto* out = new float[channels * pixels + 1];
        nb::capsule owner(out, [](void* p) noexcept { delete[] static_cast<float*>(p); });
        {
          nb::gil_scoped_release release;
          std::vector<float> table(size_t(lattice->vertices) + 1), spare(table.size());
          for (size_t c = 0; c < channels; ++c)
            lattice->filter(values.data() + c * pixels, out + c * pixels, 1, table.data(), spare.data());
        }
        return nb::ndarray<nb::numpy, float>(out, {channels, pixels}, owner);
      },
      nb::arg("lattice"), nb::arg("values"),
      "The normalised kernel times values.\n\nArgs:\n    lattice: from `lattice`.\n    values: float32 [C, N].\n\n"
      "Returns:\n    float32 [C, N].");
  m.def(
      "mean_field",
      [](Array unary, const std::vector<std::pair<std::shared_ptr<Lattice>, std::vector<float>>>& pairs, int iterations,
         float tolerance) {
        const size_t labels = unary.shape(0), pixels = unary.shape(1);
        if (labels < 2) throw std::invalid_argument("labels < 2");
        std::vector<Term> terms;
        for (const auto& [lattice, compat] : pairs) {
          if (!lattice || size_t(lattice->pixels) != pixels) throw std::invalid_argument("a lattice has another pixel count");
          if (compat.size() != 1 && compat.size() != labels && compat.size() != labels * labels)
            throw std::invalid_argument("compat size");
          terms.push_back({lattice, compat});
        }
        auto* q = new float[labels * pixels + 1];
        nb::capsule owner(q, [](void* p) noexcept { delete[] static_cast<float*>(p); });
        int done;
        {
          nb::gil_scoped_release release;
          done = mean_field(unary.data(), int(labels), int64_t(pixels), terms, iterations, tolerance, q);
        }
        return nb::make_tuple(nb::ndarray<nb::numpy, float>(q, {labels, pixels}, owner), done);
      },
      nb::arg("unary"), nb::arg("terms"), nb::arg("iterations"), nb::arg("tolerance") = 0.0f);
}
