// From a picture to the vision tower's input: pad or squash to a square, scale, normalise.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "vila/image.h"

namespace vila {

struct ImageSpec {
  enum class Mode : std::uint8_t {
    resize,  ///< squash to the square
    pad,     ///< centre on a square of the mean colour first
  };
  std::int32_t size = 0;  ///< side of the square, pixels
  Mode mode = Mode::resize;
  double rescale = 1.0 / 255.0;
  std::array<float, 3> mean{}, std{};
};

/// Immutable and thread-safe.
class ImageProcessor {
 public:
  explicit ImageProcessor(const ImageSpec& spec);
  [[nodiscard]] const ImageSpec& spec() const { return spec_; }
  /// out [3, size, size]: float(value * rescale) - mean, divided by std, as the Hugging Face processors compute it.
  void run(ImageView image, std::span<float> out) const;

 private:
  ImageSpec spec_;
  std::array<std::array<float, 256>, 3> value_{};  // per channel and byte: the finished number
};

}  // namespace vila
