// lidcam_rt._kernels.crf: lattices and mean field. lidcam_rt.crf checks its users' arguments; what would read or
// write out of bounds is checked here as well.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "crf/build_lattice.h"
#include "crf/filter.h"
#include "crf/infer.h"
#include "crf/mean_field.h"
#include "python/arrays.h"
#include "python/call.h"

namespace nb = nanobind;
using namespace lidcam::crf;
using lidcam::python::Call;
using lidcam::python::new_array;

namespace {

using Planes = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Image = nb::ndarray<const uint8_t, nb::shape<-1, -1, 3>, nb::c_contig, nb::device::cpu>;
using Energies = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Compat = std::vector<float>;
using LatticeTerm = std::pair<std::shared_ptr<Lattice>, Compat>;
using ImageTerm = std::tuple<std::vector<float>, Compat, int>;

constexpr size_t kPixels = size_t(1) << 30;

Normalization normalization_of(int value) {
  if (value < 0 || value > 3) throw std::invalid_argument("normalization is 0 to 3");
  return Normalization(value);
}

void check(size_t labels, size_t pixels, int iterations, float tolerance) {
  if (labels < 2 || labels > (1 << 16)) throw std::invalid_argument("a CRF needs 2 to 65536 labels");
  if (pixels < 1 || pixels > kPixels) throw std::invalid_argument("a CRF needs 1 to 2^30 pixels");
  if (iterations < 0) throw std::invalid_argument("iterations < 0");
  if (!(tolerance >= 0)) throw std::invalid_argument("tolerance < 0");
}

std::shared_ptr<Lattice> bind_lattice(Planes features, int normalization, bool wide) {
  Features f;
  f.pixels = int64_t(features.shape(0));
  f.dimension = int(features.shape(1) > 100 ? 100 : features.shape(1));
  f.rows = features.data();
  const Normalization kind = normalization_of(normalization);
  const Call call;
  return make_lattice(f, kind, wide);
}

std::shared_ptr<Lattice> bind_image_lattice(std::optional<Image> image, int64_t height, int64_t width,
                                            const std::vector<float>& deviations, int normalization) {
  if (height < 1 || width < 1 || height > int64_t(kPixels) || width > int64_t(kPixels) ||
      height * width > int64_t(kPixels))
    throw std::invalid_argument("a CRF needs 1 to 2^30 pixels");
  if (image && (int64_t(image->shape(0)) != height || int64_t(image->shape(1)) != width))
    throw std::invalid_argument("the image has another size");
  const Normalization kind = normalization_of(normalization);
  const Call call;
  return image_lattice(image ? image->data() : nullptr, int(height), int(width), deviations, kind);
}

nb::object bind_filter(const std::shared_ptr<Lattice>& lattice, Planes values) {
  const size_t channels = values.shape(0), pixels = values.shape(1);
  if (!lattice || size_t(lattice->pixels) != pixels)
    throw std::invalid_argument("values have another number of pixels than the lattice");
  if (channels > (1 << 16)) throw std::invalid_argument("more than 65536 channels");
  auto result = new_array<float>({channels, pixels});
  {
    const Call call;
    filter(*lattice, values.data(), int(channels), result.data());
  }
  return nb::cast(result);
}

nb::tuple bind_mean_field(Planes unary, const std::vector<LatticeTerm>& pairs, int iterations, float tolerance) {
  const size_t labels = unary.shape(0), pixels = unary.shape(1);
  check(labels, pixels, iterations, tolerance);
  std::vector<Term> terms;
  for (const auto& [lattice, compat] : pairs) {
    if (!lattice || size_t(lattice->pixels) != pixels)
      throw std::invalid_argument("a lattice has another number of pixels than unary");
    check_compat(compat, labels);
    terms.push_back({lattice, compat});
  }
  auto q = new_array<float>({labels, pixels});
  int done;
  {
    const Call call;
    check_energies(unary.data(), labels * pixels);
    done = mean_field(unary.data(), int(labels), int64_t(pixels), terms, iterations, tolerance, q.data());
  }
  return nb::make_tuple(q, done);
}

nb::tuple bind_infer(std::optional<Image> image, Energies unary, const std::vector<ImageTerm>& given, int iterations,
                     float tolerance, bool fast, const lidcam::cpu::StopFlag* stop) {
  const size_t labels = unary.shape(0), height = unary.shape(1), width = unary.shape(2);
  check(labels, height * width, iterations, tolerance);
  if (height > kPixels || width > kPixels) throw std::invalid_argument("a side is longer than 2^30");
  if (image && (image->shape(0) != height || image->shape(1) != width))
    throw std::invalid_argument("image and unary differ in size");
  std::vector<PairwiseTerm> terms;
  for (const auto& [deviation, compat, normalization] : given) {
    terms.push_back({deviation, compat, normalization_of(normalization)});
  }
  auto q = new_array<float>({labels, height, width});
  int done;
  {
    const Call call(stop);
    done = infer(image ? image->data() : nullptr, int(height), int(width), unary.data(), int(labels), terms, iterations,
                 tolerance, q.data(), fast);
  }
  return nb::make_tuple(q, done);
}

}  // namespace

void bind_crf(nb::module_& parent) {
  nb::module_ m = parent.def_submodule("crf", "Permutohedral lattice and mean field.");
  static nb::exception<lidcam::cpu::Stopped> stopped(m, "Stopped");
  nb::class_<lidcam::cpu::StopFlag>(m, "Stop", "Stops the calls of `infer` that were given it.")
      .def(nb::init<>())
      .def("set", &lidcam::cpu::StopFlag::set, "Stop them, within some 20 ms.")
      .def("is_set", &lidcam::cpu::StopFlag::is_set);
  nb::class_<Lattice>(m, "Lattice", "A permutohedral lattice over the pixels of an image.")
      .def_ro("pixels", &Lattice::pixels)
      .def_ro("dimension", &Lattice::dimension)
      .def_ro("vertices", &Lattice::vertices)
      .def_ro("simplices", &Lattice::simplices)
      .def_ro("wide", &Lattice::wide)
      .def_prop_ro("nbytes", &Lattice::bytes);
  m.def(
      "lattice", &bind_lattice, nb::arg("features"), nb::arg("normalization") = 3, nb::arg("wide") = false,
      "A lattice over features.\n\nArgs:\n    features: float32 [N, D], divided by their deviations; D is 1 to 7.\n"
      "    normalization: 0 none, 1 before, 2 after, 3 symmetric.\n    wide: use wide keys even where packed ones fit."
      "\n\nRaises:\n    ValueError: a feature is not finite or too large.");
  m.def("image_lattice", &bind_image_lattice, nb::arg("image").none(), nb::arg("height"), nb::arg("width"),
        nb::arg("deviations"), nb::arg("normalization") = 3,
        "The lattice of a Gaussian or bilateral term.\n\nArgs:\n    image: uint8 [H, W, 3]; None for a Gaussian.\n"
        "    height, width: of the image.\n    deviations: [sx, sy], kept for the next image of this size, or [sx, sy, "
        "sr, sg, sb].\n    normalization: 0 none, 1 before, 2 after, 3 symmetric.\n\nRaises:\n    ValueError: a size "
        "or deviation does not fit.");
  m.def("filter", &bind_filter, nb::arg("lattice"), nb::arg("values"),
        "The normalised kernel times values.\n\nArgs:\n    lattice: from `lattice`.\n    values: float32 [C, N].\n\n"
        "Returns:\n    float32 [C, N].");
  m.def("mean_field", &bind_mean_field, nb::arg("unary"), nb::arg("terms"), nb::arg("iterations"),
        nb::arg("tolerance") = 0.0f,
        "Mean field over lattices.\n\nArgs:\n    unary: float32 [L, N].\n    terms: (lattice, compat) pairs; compat "
        "holds 1 value (Potts weight), L or L * L.\n    iterations: at most so many.\n    tolerance: stop when no "
        "probability moved by more; 0: never.\n\nReturns:\n    float32 [L, N] and the iterations done.");
  m.def("infer", &bind_infer, nb::arg("image").none(), nb::arg("unary"), nb::arg("terms"), nb::arg("iterations"),
        nb::arg("tolerance") = 0.0f, nb::arg("fast") = false, nb::arg("stop").none() = nb::none(),
        "Mean field over an image.\n\nArgs:\n    image: uint8 [H, W, 3] or None.\n    unary: float32 [L, H, W].\n"
        "    terms: (deviations, compat, normalization); 2 deviations are spatial, 5 bilateral.\n"
        "    fast: sums in the order that is fastest instead of pydensecrf's.\n    stop: a Stop; once another thread "
        "sets it, this ends with Stopped.\n\n"
        "Returns:\n    float32 [L, H, W] and the iterations done.");
  m.def("clear_cache", &clear_spatial_cache, "Forget the spatial lattices.");
  m.def(
      "cache_info",
      [] {
        const CacheInfo info = spatial_cache_info();
        nb::dict d;
        d["lattices"] = info.lattices;
        d["bytes"] = info.bytes;
        d["hits"] = info.hits;
        d["misses"] = info.misses;
        return d;
      },
      "dict: lattices, bytes, hits and misses of the cache of spatial lattices.");
}
