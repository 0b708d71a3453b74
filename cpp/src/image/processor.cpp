#include "image/processor.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "image/resize.h"
#include "vila/error.h"

namespace vila {
namespace {

// The picture in the middle of a square of its longer side, on the mean colour.
Image pad_to_square(ImageView image, const std::array<float, 3>& mean) {
  const std::int32_t side = std::max(image.width, image.height);
  Image square;
  square.width = square.height = side;
  square.rgb.resize(static_cast<std::size_t>(side) * static_cast<std::size_t>(side) * 3);
  std::array<std::uint8_t, 3> colour{};
  for (std::size_t c = 0; c < 3; ++c) colour[c] = static_cast<std::uint8_t>(static_cast<double>(mean[c]) * 255.0);
  for (std::size_t i = 0; i < square.rgb.size(); ++i) square.rgb[i] = colour[i % 3];
  const std::int32_t left = (side - image.width) / 2;
  const std::int32_t top = (side - image.height) / 2;
  for (std::int32_t y = 0; y < image.height; ++y) {
    std::memcpy(square.rgb.data() + (static_cast<std::ptrdiff_t>(y + top) * side + left) * 3,
                image.rgb + y * image.row_bytes, static_cast<std::size_t>(image.width) * 3);
  }
  return square;
}

}  // namespace

ImageProcessor::ImageProcessor(const ImageSpec& spec) : spec_(spec) {
  for (std::size_t channel = 0; channel < 3; ++channel) {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const auto scaled = static_cast<float>(static_cast<double>(byte) * spec.rescale);
      value_[channel][byte] = (scaled - spec.mean[channel]) / spec.std[channel];
    }
  }
}

void ImageProcessor::run(ImageView image, std::span<float> out) const {
  const auto pixels = static_cast<std::size_t>(spec_.size) * static_cast<std::size_t>(spec_.size);
  if (out.size() != 3 * pixels) {
    throw InvalidArgument("[image] output: expected " + std::to_string(3 * pixels) + " numbers, got " +
                          std::to_string(out.size()));
  }
  Image padded;
  if (spec_.mode == ImageSpec::Mode::pad && image.width != image.height) {
    padded = pad_to_square(image, spec_.mean);
    image = padded.view();
  }
  const Image resized = resize_bicubic(image, spec_.size, spec_.size);
  for (std::size_t channel = 0; channel < 3; ++channel) {
    float* plane = out.data() + channel * pixels;
    for (std::size_t i = 0; i < pixels; ++i) plane[i] = value_[channel][resized.rgb[3 * i + channel]];
  }
}

}  // namespace vila
