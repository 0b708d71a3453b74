// Table of contents of vila_engine._core.
#include <pybind11/pybind11.h>

#include "vila/version.h"

namespace vila::bindings {
void bind_errors(pybind11::module_& m);
void bind_quantize(pybind11::module_& m);
void bind_session(pybind11::module_& m);
void bind_engine(pybind11::module_& m);
}  // namespace vila::bindings

void bind_tokenizer(pybind11::module_& m);
void bind_image(pybind11::module_& m);

PYBIND11_MODULE(_core, m) {
  m.doc() = "The C++ engine of vila_engine.";
  m.attr("__version__") = vila::kVersion;
  vila::bindings::bind_errors(m);
  bind_tokenizer(m);
  bind_image(m);
  vila::bindings::bind_quantize(m);
  vila::bindings::bind_session(m);
  vila::bindings::bind_engine(m);
}
