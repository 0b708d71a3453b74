// Any bytes: decode_image gives a picture whose buffer has the size that its header says, or throws a typed error.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "vila/error.h"
#include "vila/image.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::int64_t kMaxPixels = std::int64_t{1} << 20;
  try {
    const vila::Image image = vila::decode_image(std::as_bytes(std::span(data, size)), kMaxPixels);
    const std::int64_t pixels = std::int64_t{image.width} * image.height;
    if (image.width < 1 || image.height < 1 || pixels > kMaxPixels) std::abort();
    if (std::int64_t(image.rgb.size()) != 3 * pixels) std::abort();
  } catch (const vila::InvalidArgument&) {
  } catch (const vila::UnsupportedError&) {
  }
  return 0;
}
