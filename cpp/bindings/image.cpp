// Pictures for Python: the engine's own resize and preprocessing, for tests and tools.
#include <optional>
#include <string>

#include "convert.h"
#include "image/processor.h"
#include "image/resize.h"
#include "image/s2_resize.h"

namespace py = pybind11;
using vila::bindings::Picture;
using vila::bindings::view_of;

namespace {

Picture to_array(const vila::Image& image) {
  Picture array({static_cast<py::ssize_t>(image.height), static_cast<py::ssize_t>(image.width), py::ssize_t{3}});
  std::copy(image.rgb.begin(), image.rgb.end(), array.mutable_data());
  return array;
}

Picture resize(const Picture& image, std::int32_t width, std::int32_t height) {
  const vila::ImageView view = view_of(image);
  vila::Image result;
  {
    const py::gil_scoped_release release;
    result = vila::resize_bicubic(view, width, height);
  }
  return to_array(result);
}

Picture decode(const py::bytes& bytes) {
  const auto text = static_cast<std::string_view>(bytes);
  return to_array(vila::decode_image(std::as_bytes(std::span(text.data(), text.size()))));
}

py::array_t<float> process(const Picture& image, std::int32_t size, const std::string& mode, double rescale,
                           std::array<float, 3> mean, std::array<float, 3> std) {
  if (mode != "resize" && mode != "pad") {
    throw vila::InvalidArgument("[image] mode: expected \"resize\" or \"pad\", got \"" + mode + "\"");
  }
  vila::ImageSpec spec;
  spec.size = size;
  spec.mode = mode == "pad" ? vila::ImageSpec::Mode::pad : vila::ImageSpec::Mode::resize;
  spec.rescale = rescale;
  spec.mean = mean;
  spec.std = std;
  py::array_t<float> out({std::int64_t{3}, std::int64_t{size}, std::int64_t{size}});
  vila::ImageProcessor(spec).run(view_of(image), {out.mutable_data(), static_cast<std::size_t>(out.size())});
  return out;
}

py::array_t<float> resize_planes(const py::array_t<float, py::array::c_style>& planes, std::int64_t size) {
  if (planes.ndim() != 3 || planes.shape(0) != 3 || planes.shape(1) != planes.shape(2) || size < 1) {
    throw vila::InvalidArgument("[image] planes: expected f32 [3, S, S] and a size of at least 1, got rank " +
                                std::to_string(planes.ndim()));
  }
  py::array_t<float> out({std::int64_t{3}, size, size});
  vila::resize_f32_bicubic(planes.data(), planes.shape(1), out.mutable_data(), size);
  return out;
}

}  // namespace

void bind_image(py::module_& m) {
  m.def("resize_bicubic", &resize, py::arg("image"), py::arg("width"), py::arg("height"),
        "uint8 [H, W, 3] -> uint8 [height, width, 3], bit for bit as Pillow 10.4's bicubic resize.");
  m.def("decode_image", &decode, py::arg("data"), "Decodes PPM, PNG or JPEG bytes to uint8 [H, W, 3].");
  m.def("process_image", &process, py::arg("image"), py::kw_only(), py::arg("size"), py::arg("mode"), py::arg("rescale"),
        py::arg("mean"), py::arg("std"), "The tower's input f32 [3, size, size].");
  m.def("resize_planes", &resize_planes, py::arg("planes"), py::arg("size"),
        "f32 [3, S, S] -> f32 [3, size, size], as torch's bicubic interpolate without antialiasing.");
}
