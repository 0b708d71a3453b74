// Between numpy arrays and the engine's views; no logic.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "vila/engine.h"

namespace vila::bindings {

namespace py = pybind11;

/// A C-contiguous uint8 array [height, width, 3].
using Picture = py::array_t<std::uint8_t, py::array::c_style>;

inline ImageView view_of(const Picture& array) {
  if (array.ndim() != 3 || array.shape(2) != 3 || array.shape(0) < 1 || array.shape(1) < 1 ||
      array.shape(0) > INT32_MAX || array.shape(1) > INT32_MAX) {
    throw InvalidArgument("[picture] expected a uint8 array [height, width, 3], got " +
                          py::str(array.attr("shape")).cast<std::string>());
  }
  return {array.data(), static_cast<std::int32_t>(array.shape(1)), static_cast<std::int32_t>(array.shape(0)),
          std::int64_t{3} * array.shape(1)};
}

inline py::array_t<float> to_numpy(FloatArray array) {
  auto* data = new std::vector<float>(std::move(array.data));
  const py::capsule owner(data, [](void* p) { delete static_cast<std::vector<float>*>(p); });
  return py::array_t<float>(array.shape, data->data(), owner);
}

/// (role, text) pairs, pictures and videos as Prompt; the arrays must stay alive as long as the result is used.
inline Prompt make_prompt(const std::vector<std::pair<std::string, std::string>>& messages,
                          const std::vector<Picture>& images, const std::vector<std::vector<Picture>>& videos,
                          std::optional<std::string> system, bool reference_compat) {
  Prompt prompt;
  for (const auto& [role, text] : messages) prompt.messages.push_back({role, text});
  for (const Picture& image : images) prompt.images.push_back(view_of(image));
  for (const std::vector<Picture>& frames : videos) {
    prompt.videos.emplace_back();
    for (const Picture& frame : frames) prompt.videos.back().push_back(view_of(frame));
  }
  prompt.system = std::move(system);
  prompt.reference_compat = reference_compat;
  return prompt;
}

}  // namespace vila::bindings
