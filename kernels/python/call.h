// Calls of kernels from Python.
#pragma once
#include <nanobind/nanobind.h>

#include "cpu/stop.h"

namespace lidcam::python {

// While it lives, the interpreter lock is released. A kernel that checks (cpu/stop.h) ends when `flag` is set, and on
// the main thread when a signal's handler raises, as Ctrl-C's does.
class Call {
 public:
  explicit Call(const cpu::StopFlag* flag = nullptr) : scope_(poll(flag, on_main_thread())) {}

 private:
  static bool on_main_thread() {
    const auto main = nanobind::module_::import_("threading").attr("main_thread")().attr("ident");
    return nanobind::cast<unsigned long>(main) == PyThread_get_thread_ident();
  }
  static std::function<void()> poll(const cpu::StopFlag* flag, bool signals) {
    return [flag, signals] {
      if (flag && flag->is_set()) throw cpu::Stopped();
      if (!signals) return;
      nanobind::gil_scoped_acquire acquire;
      if (PyErr_CheckSignals() != 0) throw nanobind::python_error();
    };
  }
  cpu::StopScope scope_;
  nanobind::gil_scoped_release release_;
};

}  // namespace lidcam::python
