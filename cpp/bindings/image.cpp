// The engine's own resize for Python: tests compare it with Pillow, tools prepare pictures with it.
#include <algorithm>

#include "convert.h"
#include "image/resize.h"

namespace vila::bindings {
namespace {

Picture resize(const Picture& image, std::int32_t width, std::int32_t height) {
  const ImageView view = view_of(image);
  Image result;
  {
    const py::gil_scoped_release release;
    result = resize_bicubic(view, width, height);
  }
  Picture array({static_cast<py::ssize_t>(result.height), static_cast<py::ssize_t>(result.width), py::ssize_t{3}});
  std::copy(result.rgb.begin(), result.rgb.end(), array.mutable_data());
  return array;
}

}  // namespace

void bind_image(py::module_& m) {
  m.def("resize_bicubic", &resize, py::arg("image"), py::arg("width"), py::arg("height"),
        "uint8 [H, W, 3] -> uint8 [height, width, 3], bit for bit as Pillow 10.4's bicubic resize.");
}

}  // namespace vila::bindings
