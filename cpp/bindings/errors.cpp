// The C++ errors as Python exceptions.
#include <pybind11/pybind11.h>

#include "vila/error.h"

namespace vila::bindings {
namespace {

namespace py = pybind11;

// Exception classes live as long as the module; plain handles, because no destructor may run after the interpreter ends.
struct Classes {
  py::handle error, invalid_argument, io, checkpoint, unsupported, capacity, internal;
} classes;

py::handle make(py::module_& m, const char* name, const py::tuple& bases, const char* doc) {
  py::dict body;
  body["__doc__"] = doc;
  body["__module__"] = "vila_engine";
  const py::object type = py::module_::import("builtins").attr("type")(name, bases, body);
  m.attr(name) = type;
  return py::object(type).release();
}

py::handle class_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument: return classes.invalid_argument;
    case ErrorCode::io: return classes.io;
    case ErrorCode::checkpoint: return classes.checkpoint;
    case ErrorCode::unsupported: return classes.unsupported;
    case ErrorCode::capacity: return classes.capacity;
    case ErrorCode::internal: return classes.internal;
  }
  return classes.error;
}

}  // namespace

void bind_errors(py::module_& m) {
  const py::module_ builtins = py::module_::import("builtins");
  classes.error = make(m, "Error", py::make_tuple(builtins.attr("RuntimeError")), "Base of all errors of the engine.");
  const py::object error = py::reinterpret_borrow<py::object>(classes.error);
  classes.invalid_argument = make(m, "InvalidArgument", py::make_tuple(error, builtins.attr("ValueError")),
                                  "The caller passed something that cannot be right.");
  classes.io = make(m, "IoError", py::make_tuple(error, builtins.attr("OSError")), "A file is missing or unreadable.");
  classes.checkpoint = make(m, "CheckpointError", py::make_tuple(error), "A file is readable but its contents are wrong.");
  classes.unsupported = make(m, "UnsupportedError", py::make_tuple(error), "Valid, but not in this build or on this machine.");
  classes.capacity = make(m, "CapacityError", py::make_tuple(error),
                          "The context window or the memory is exhausted; carries needed and available.");
  classes.internal = make(m, "InternalError", py::make_tuple(error), "A bug of the engine; please report it.");

  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const CapacityError& e) {
      const py::object instance = py::reinterpret_borrow<py::object>(classes.capacity)(e.what());
      instance.attr("needed") = e.needed();
      instance.attr("available") = e.available();
      PyErr_SetObject(classes.capacity.ptr(), instance.ptr());
    } catch (const Error& e) {
      PyErr_SetString(class_of(e.code()).ptr(), e.what());
    }
  });
}

}  // namespace vila::bindings
