// 8-bit RGB pictures as they enter the engine; decoding from bytes. No resizing happens here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace vila {

/// Borrowed 8-bit RGB pixels, the only pixel format of the engine. Row y starts at rgb + y * row_bytes.
struct ImageView {
  const std::uint8_t* rgb = nullptr;
  std::int32_t width = 0;      ///< pixels, at least 1
  std::int32_t height = 0;     ///< pixels, at least 1
  std::int64_t row_bytes = 0;  ///< at least 3 * width
};

/// Owned 8-bit RGB pixels, rows without padding.
struct Image {
  std::vector<std::uint8_t> rgb;  ///< [height, width, 3]
  std::int32_t width = 0;
  std::int32_t height = 0;
  [[nodiscard]] ImageView view() const { return {rgb.data(), width, height, std::int64_t{3} * width}; }
};

/// Decodes PPM (P6), and PNG and JPEG where the build found libpng and libjpeg.
/// Alpha is dropped and grey is replicated, as Pillow's convert("RGB") does.
/// Throws InvalidArgument for bytes that are no picture or a broken one and for pictures above `max_pixels`,
/// UnsupportedError for formats that this build cannot decode.
Image decode_image(std::span<const std::byte> bytes, std::int64_t max_pixels = 178'956'970);

}  // namespace vila
