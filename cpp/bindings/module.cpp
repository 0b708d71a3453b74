// Table of contents of vila_engine._core.
#include <pybind11/pybind11.h>

#include "vila/version.h"

namespace vila::bindings {
void bind_errors(pybind11::module_& m);
void bind_tokenizer(pybind11::module_& m);
void bind_image(pybind11::module_& m);
void bind_quantize(pybind11::module_& m);
void bind_session(pybind11::module_& m);
void bind_engine(pybind11::module_& m);
}  // namespace vila::bindings

PYBIND11_MODULE(_core, m) {
  using namespace vila::bindings;  // NOLINT(google-build-using-namespace): six names, declared above
  m.doc() = "The C++ engine of vila_engine.";
  m.attr("__version__") = vila::kVersion;
  bind_errors(m);
  bind_tokenizer(m);
  bind_image(m);
  bind_quantize(m);
  bind_session(m);
  bind_engine(m);
}
