#include <algorithm>
#include <charconv>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "vila/error.h"
#include "vila/image.h"

#if VILA_HAS_PNG
#include <png.h>
#endif
#if VILA_HAS_JPEG
#include <csetjmp>
#include <cstdio>

#include <jpeglib.h>
#endif

namespace vila {
namespace {

[[noreturn]] void broken(const std::string& kind, const std::string& what) {
  throw InvalidArgument("[image] expected a whole " + kind + " picture, got a broken one: " + what);
}

void check_size(std::int64_t width, std::int64_t height, std::int64_t max_pixels) {
  if (width < 1 || height < 1 || width > INT32_MAX / 3 || height > INT32_MAX || height > max_pixels / width) {
    throw InvalidArgument("[image] expected at most " + std::to_string(max_pixels) + " pixels, got " +
                          std::to_string(width) + " x " + std::to_string(height));
  }
}

// A picture's size as its file claims it. Plain numbers: they are set in functions that a longjmp may leave.
struct Extent {
  std::int64_t width = 0, height = 0;
};

Image new_image(std::int64_t width, std::int64_t height) {
  Image image;
  image.width = static_cast<std::int32_t>(width);
  image.height = static_cast<std::int32_t>(height);
  image.rgb.resize(static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 3);
  return image;
}

// A number of a PPM header, after white space and comments.
std::int64_t ppm_number(std::string_view& text) {
  while (!text.empty() && (std::strchr(" \t\r\n", text.front()) != nullptr || text.front() == '#')) {
    if (text.front() == '#') {
      text.remove_prefix(std::min(text.find('\n'), text.size()));
    } else {
      text.remove_prefix(1);
    }
  }
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) broken("PPM", "no number where its header needs one");
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

Image decode_ppm(std::string_view text, std::int64_t max_pixels) {
  text.remove_prefix(2);
  const std::int64_t width = ppm_number(text);
  const std::int64_t height = ppm_number(text);
  const std::int64_t highest = ppm_number(text);
  check_size(width, height, max_pixels);
  if (highest != 255) {
    throw UnsupportedError("[image] PPM: expected 8 bits (a highest value of 255), got " + std::to_string(highest));
  }
  if (text.empty()) broken("PPM", "no pixels");
  text.remove_prefix(1);
  const auto bytes = static_cast<std::size_t>(3 * width * height);
  if (text.size() < bytes)
    broken("PPM", "expected " + std::to_string(bytes) + " bytes of pixels, got " + std::to_string(text.size()));
  Image image = new_image(width, height);
  std::memcpy(image.rgb.data(), text.data(), bytes);
  return image;
}

#if VILA_HAS_PNG

struct PngSource {
  std::span<const std::byte> bytes;
  std::string error;
};

// libpng leaves by longjmp, which must not cross a destructor: this function owns nothing but what the caller holds.
bool read_png(PngSource& source, png_structp png, png_infop info, std::int64_t max_pixels, Image& image,
              std::vector<png_bytep>& rows, std::vector<std::uint8_t>& wide, Extent& too_large) {
  if (setjmp(png_jmpbuf(png)) != 0) return false;  // NOLINT(cert-err52-cpp): libpng's way of reporting errors
  png_set_read_fn(png, &source, [](png_structp p, png_bytep out, png_size_t count) {
    auto* from = static_cast<PngSource*>(png_get_io_ptr(p));
    if (from->bytes.size() < count) png_error(p, "the file ends early");
    std::memcpy(out, from->bytes.data(), count);
    from->bytes = from->bytes.subspan(count);
  });
  png_read_info(png, info);
  const std::int64_t width = png_get_image_width(png, info);
  const std::int64_t height = png_get_image_height(png, info);
  if (width < 1 || height < 1 || height > max_pixels / width) {
    too_large = {width, height};
    return false;
  }
  // 8-bit RGB as Pillow's convert("RGB"): palettes and grey are expanded, 16 bits keep their high byte, alpha is
  // dropped. Only grey of 16 bits without alpha is clipped to 255 instead, because Pillow keeps it whole until the
  // conversion.
  const int colour = png_get_color_type(png, info);
  if (colour == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
  if (colour == PNG_COLOR_TYPE_GRAY && png_get_bit_depth(png, info) < 8) png_set_expand_gray_1_2_4_to_8(png);
  const bool clip = colour == PNG_COLOR_TYPE_GRAY && png_get_bit_depth(png, info) == 16;
  if (png_get_bit_depth(png, info) == 16 && !clip) png_set_strip_16(png);
  if (!clip && (colour == PNG_COLOR_TYPE_GRAY || colour == PNG_COLOR_TYPE_GRAY_ALPHA)) png_set_gray_to_rgb(png);
  png_set_strip_alpha(png);
  png_set_interlace_handling(png);
  png_read_update_info(png, info);
  image = new_image(width, height);
  const auto row_bytes = static_cast<std::size_t>((clip ? 2 : 3) * width);
  if (png_get_rowbytes(png, info) != row_bytes) png_error(png, "unexpected row size");
  if (clip) wide.resize(row_bytes * static_cast<std::size_t>(height));
  rows.resize(static_cast<std::size_t>(height));
  std::uint8_t* target = clip ? wide.data() : image.rgb.data();
  for (std::size_t y = 0; y < rows.size(); ++y) rows[y] = target + y * row_bytes;
  png_read_image(png, rows.data());
  for (std::size_t i = 0; i < wide.size() / 2; ++i) {  // big-endian
    const std::uint8_t grey = wide[2 * i] != 0 ? 255 : wide[2 * i + 1];
    std::fill_n(image.rgb.data() + 3 * i, 3, grey);
  }
  png_read_end(png, nullptr);
  return true;
}

Image decode_png(std::span<const std::byte> bytes, std::int64_t max_pixels) {
  PngSource source{bytes, {}};
  png_structp png = png_create_read_struct(
      PNG_LIBPNG_VER_STRING, &source,
      [](png_structp p, png_const_charp message) {
        static_cast<PngSource*>(png_get_error_ptr(p))->error = message;
        png_longjmp(p, 1);
      },
      [](png_structp, png_const_charp) {});
  png_infop info = png != nullptr ? png_create_info_struct(png) : nullptr;
  Image image;
  std::vector<png_bytep> rows;
  std::vector<std::uint8_t> wide;
  Extent too_large;
  const bool ok = info != nullptr && read_png(source, png, info, max_pixels, image, rows, wide, too_large);
  png_destroy_read_struct(&png, &info, nullptr);
  if (too_large.width > 0) check_size(too_large.width, too_large.height, max_pixels);
  if (!ok) broken("PNG", source.error.empty() ? "out of memory" : source.error);
  return image;
}

#else

Image decode_png(std::span<const std::byte>, std::int64_t) {
  throw UnsupportedError("[image] expected PPM, got PNG, which this build cannot decode (built without libpng)");
}

#endif

#if VILA_HAS_JPEG

struct JpegErrors {
  jpeg_error_mgr manager;  // first, so that libjpeg's pointer to it is a pointer to this
  std::jmp_buf escape;
  char message[JMSG_LENGTH_MAX];
};

bool read_jpeg(jpeg_decompress_struct& jpeg, JpegErrors& errors, std::span<const std::byte> bytes,
               std::int64_t max_pixels, Image& image, std::vector<std::uint8_t>& line, Extent& too_large) {
  if (setjmp(errors.escape) != 0) return false;  // NOLINT(cert-err52-cpp): libjpeg's way of reporting errors
  jpeg_create_decompress(&jpeg);
  jpeg_mem_src(&jpeg, reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<unsigned long>(bytes.size()));
  jpeg_read_header(&jpeg, TRUE);
  const std::int64_t width = jpeg.image_width;
  const std::int64_t height = jpeg.image_height;
  if (width < 1 || height < 1 || height > max_pixels / width) {
    too_large = {width, height};
    return false;
  }
  const bool cmyk = jpeg.num_components == 4;
  jpeg.out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
  jpeg_start_decompress(&jpeg);
  image = new_image(width, height);
  line.resize(static_cast<std::size_t>(width) * 4);
  while (jpeg.output_scanline < jpeg.output_height) {
    std::uint8_t* row =
        image.rgb.data() + static_cast<std::size_t>(jpeg.output_scanline) * static_cast<std::size_t>(3 * width);
    JSAMPROW target = cmyk ? line.data() : row;
    jpeg_read_scanlines(&jpeg, &target, 1);
    if (!cmyk) continue;
    // Adobe's files hold inverted inks: the value is what is left of the light, as Pillow reads them.
    for (std::int64_t x = 0; x < width; ++x) {
      const std::uint8_t* ink = line.data() + 4 * x;
      for (int c = 0; c < 3; ++c) {
        const int product = ink[c] * ink[3] + 128;
        row[3 * x + c] = static_cast<std::uint8_t>((product + (product >> 8)) >> 8);
      }
    }
  }
  jpeg_finish_decompress(&jpeg);
  return true;
}

Image decode_jpeg(std::span<const std::byte> bytes, std::int64_t max_pixels) {
  jpeg_decompress_struct jpeg{};
  JpegErrors errors{};
  jpeg.err = jpeg_std_error(&errors.manager);
  errors.manager.error_exit = [](j_common_ptr common) {
    auto* self = reinterpret_cast<JpegErrors*>(common->err);
    common->err->format_message(common, self->message);
    std::longjmp(self->escape, 1);
  };
  // A warning means damaged data (a truncated file, for one): that is an error here, as in Pillow.
  errors.manager.emit_message = [](j_common_ptr common, int level) {
    if (level < 0) common->err->error_exit(common);
  };
  Image image;
  std::vector<std::uint8_t> line;
  Extent too_large;
  const bool ok = read_jpeg(jpeg, errors, bytes, max_pixels, image, line, too_large);
  jpeg_destroy_decompress(&jpeg);
  if (too_large.width > 0) check_size(too_large.width, too_large.height, max_pixels);
  if (!ok) broken("JPEG", errors.message);
  return image;
}

#else

Image decode_jpeg(std::span<const std::byte>, std::int64_t) {
  throw UnsupportedError("[image] expected PPM, got JPEG, which this build cannot decode (built without libjpeg)");
}

#endif

}  // namespace

Image decode_image(std::span<const std::byte> bytes, std::int64_t max_pixels) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.starts_with("P6")) return decode_ppm(text, max_pixels);
  if (text.starts_with("\x89PNG\r\n\x1a\n")) return decode_png(bytes, max_pixels);
  if (text.starts_with("\xff\xd8\xff")) return decode_jpeg(bytes, max_pixels);
  throw InvalidArgument("[image] expected PPM (P6), PNG or JPEG, got " + std::to_string(bytes.size()) +
                        " bytes of something else");
}

}  // namespace vila
