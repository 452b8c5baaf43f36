// lidcam_rt._kernels: the bindings of every subject, one bind_<subject>.cpp each.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <stdexcept>

#include "cpu/isa.h"

namespace nb = nanobind;

void bind_components(nb::module_& parent);
void bind_crf(nb::module_& parent);
void bind_cuda(nb::module_& parent);
void bind_metrics(nb::module_& parent);
void bind_pas(nb::module_& parent);

NB_MODULE(_kernels, m) {
  // An interrupt may leave objects alive in a traceback until the process ends; a leak warning would be its last line.
  nb::set_leak_warnings(false);
  m.doc() = "Compiled kernels of lidcam_rt. Use the Python modules (lidcam_rt.pas, .boxes, .crf), not this one.";
  m.def(
      "build_info",
      [] {
        nb::dict info;
#if defined(__clang__)
        info["compiler"] = "clang " __clang_version__;
#elif defined(__GNUC__)
        info["compiler"] = "gcc " __VERSION__;
#else
        info["compiler"] = "unknown";
#endif
        return info;
      },
      "What this module was built with.\n\nReturns:\n    dict: compiler name and version, and the optional parts that "
      "were built.");
  m.def("isa", &lidcam::cpu::isa_name, "str: the instruction set whose kernels run: baseline, avx2 or avx512.");
  m.def(
      "use_isa",
      [](const std::string& name) {
        if (!lidcam::cpu::use_isa(name.c_str()))
          throw std::invalid_argument("this machine or build has no kernels for " + name);
      },
      nb::arg("name"), "Run the kernels of avx512, avx2, baseline or auto. For tests: all give the same bits.");
  bind_components(m);
  bind_crf(m);
  bind_cuda(m);
  bind_metrics(m);
  bind_pas(m);
}
