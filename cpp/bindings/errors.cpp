// The C++ errors as Python exceptions.
#include <string_view>

#include <pybind11/pybind11.h>

#include "vila/error.h"

namespace vila::bindings {
namespace {

namespace py = pybind11;

// Exception classes live as long as the module; plain handles, because no destructor may run after the interpreter
// ends.
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
    case ErrorCode::invalid_argument:
      return classes.invalid_argument;
    case ErrorCode::io:
      return classes.io;
    case ErrorCode::checkpoint:
      return classes.checkpoint;
    case ErrorCode::unsupported:
      return classes.unsupported;
    case ErrorCode::capacity:
      return classes.capacity;
    case ErrorCode::internal:
      return classes.internal;
  }
  return classes.error;
}

// What a damaged file holds may be quoted, so the text need not be UTF-8.
py::str message_of(const Error& error) {
  const std::string_view text = error.what();
  PyObject* decoded = PyUnicode_DecodeUTF8(text.data(), static_cast<py::ssize_t>(text.size()), "replace");
  if (decoded == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::str>(decoded);
}

}  // namespace

void bind_errors(py::module_& m) {
  const py::module_ builtins = py::module_::import("builtins");
  classes.error = make(m, "Error", py::make_tuple(builtins.attr("RuntimeError")), "Base of all errors of the engine.");
  const py::object error = py::reinterpret_borrow<py::object>(classes.error);
  classes.invalid_argument = make(m, "InvalidArgument", py::make_tuple(error, builtins.attr("ValueError")),
                                  "The caller passed something that cannot be right.");
  classes.io = make(m, "IoError", py::make_tuple(error, builtins.attr("OSError")), "A file is missing or unreadable.");
  classes.checkpoint =
      make(m, "CheckpointError", py::make_tuple(error), "A file is readable but its contents are wrong.");
  classes.unsupported =
      make(m, "UnsupportedError", py::make_tuple(error), "Valid, but not in this build or on this machine.");
  classes.capacity = make(m, "CapacityError", py::make_tuple(error),
                          "The context window or the memory is exhausted; carries needed and available.");
  classes.internal = make(m, "InternalError", py::make_tuple(error), "A bug of the engine; please report it.");

  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const CapacityError& e) {
      const py::object instance = py::reinterpret_borrow<py::object>(classes.capacity)(message_of(e));
      instance.attr("needed") = e.needed();
      instance.attr("available") = e.available();
      PyErr_SetObject(classes.capacity.ptr(), instance.ptr());
    } catch (const Error& e) {
      PyErr_SetObject(class_of(e.code()).ptr(), message_of(e).ptr());
    }
  });
}

}  // namespace vila::bindings
