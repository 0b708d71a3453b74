// decode_image against the pixels that the files were made from.
#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "image/jpeg_samples.h"
#include "image/png_writer.h"
#include "support/expect_error.h"
#include "support/random.h"
#include "vila/error.h"
#include "vila/image.h"

namespace vila {
namespace {

using testing_support::Bytes;
using testing_support::expect_error;
using testing_support::jpeg_samples;
using testing_support::JpegSample;
using testing_support::png_file;
using testing_support::PngPicture;
using testing_support::Random;

Image decode(const Bytes& bytes, std::int64_t max_pixels = 1'000'000) {
  return decode_image(std::as_bytes(std::span(bytes)), max_pixels);
}

Bytes bytes_of(std::string_view text) { return {text.begin(), text.end()}; }

bool can_decode(const Bytes& file) {
  try {
    decode(file);
  } catch (const UnsupportedError&) {
    return false;
  }
  return true;
}

Bytes any_png() {
  return png_file({.width = 9, .height = 5, .sample = [](auto x, auto y, int c) {
                     return x * 7 + y + static_cast<std::uint32_t>(c);
                   }});
}

class Png : public testing::Test {
 protected:
  void SetUp() override {
    if (!can_decode(any_png())) GTEST_SKIP() << "built without libpng";
  }
};

class Jpeg : public testing::Test {
 protected:
  void SetUp() override {
    if (!can_decode(jpeg_samples().front().bytes)) GTEST_SKIP() << "built without libjpeg";
  }
};

// What Pillow's convert("RGB") makes of a sample.
std::array<std::uint32_t, 3> expected_rgb(const PngPicture& p, std::uint32_t x, std::uint32_t y) {
  const std::uint32_t highest = (1U << p.depth) - 1;
  if (p.colour == 3) {
    const std::size_t entry = 3 * p.sample(x, y, 0);
    return {p.palette[entry], p.palette[entry + 1], p.palette[entry + 2]};
  }
  if (p.colour == 0 || p.colour == 4) {
    const std::uint32_t v = p.sample(x, y, 0);
    const std::uint32_t grey = p.depth < 8     ? v * 255 / highest
                               : p.depth == 8  ? v
                               : p.colour == 4 ? v >> 8
                                               : std::min(v, 255U);
    return {grey, grey, grey};
  }
  const int shift = p.depth - 8;
  return {p.sample(x, y, 0) >> shift, p.sample(x, y, 1) >> shift, p.sample(x, y, 2) >> shift};
}

void expect_picture(const Image& image, const PngPicture& p) {
  ASSERT_EQ(image.width, static_cast<std::int32_t>(p.width));
  ASSERT_EQ(image.height, static_cast<std::int32_t>(p.height));
  ASSERT_EQ(image.rgb.size(), std::size_t{3} * p.width * p.height);
  for (std::uint32_t y = 0; y < p.height; ++y) {
    for (std::uint32_t x = 0; x < p.width; ++x) {
      const auto rgb = expected_rgb(p, x, y);
      for (std::size_t c = 0; c < 3; ++c)
        ASSERT_EQ(image.rgb[3 * (std::size_t{y} * p.width + x) + c], rgb[c]) << x << ' ' << y << ' ' << c;
    }
  }
}

TEST_F(Png, EveryKindOfPixel) {
  const std::pair<int, std::vector<int>> kinds[] = {
      {0, {1, 2, 4, 8, 16}}, {2, {8, 16}}, {3, {1, 2, 4, 8}}, {4, {8, 16}}, {6, {8, 16}}};
  Random random(3);
  for (const auto& [colour, depths] : kinds) {
    for (const int depth : depths) {
      for (const bool interlaced : {false, true}) {
        for (const auto& [width, height] : {std::pair{1U, 1U}, {3U, 2U}, {17U, 11U}}) {
          SCOPED_TRACE(testing::Message()
                       << "colour " << colour << " depth " << depth << " interlaced " << interlaced << ' ' << width);
          PngPicture p{.width = width, .height = height, .depth = depth, .colour = colour, .interlaced = interlaced};
          if (colour == 3) {
            for (int i = 0; i < 3 << depth; ++i) p.palette.push_back(static_cast<std::uint8_t>(random.integer(0, 255)));
          }
          const std::uint64_t seed = random.bits();
          p.sample = [seed, depth](std::uint32_t x, std::uint32_t y, int c) {
            const auto value = Random(seed + x * 1000 + y * 10 + static_cast<std::uint64_t>(c)).bits();
            // Half of the wide samples are small: those that clipping leaves as they are.
            return static_cast<std::uint32_t>(value & ((1U << depth) - 1)) >> (depth == 16 && value >> 63 ? 8 : 0);
          };
          expect_picture(decode(png_file(p)), p);
        }
      }
    }
  }
}

TEST_F(Png, TransparencyIsDropped) {
  PngPicture palette{.width = 4,
                     .height = 1,
                     .depth = 2,
                     .colour = 3,
                     .palette = {9, 8, 7, 60, 50, 40, 1, 2, 3, 200, 210, 220},
                     .transparency = {0, 128},
                     .sample = [](auto x, auto, int) { return x; }};
  expect_picture(decode(png_file(palette)), palette);
  PngPicture grey{
      .width = 4, .height = 1, .depth = 8, .colour = 0, .transparency = {0, 2}, .sample = [](auto x, auto, int) {
        return x;
      }};
  expect_picture(decode(png_file(grey)), grey);
  PngPicture rgb{.width = 4,
                 .height = 1,
                 .depth = 8,
                 .colour = 2,
                 .transparency = {0, 1, 0, 1, 0, 1},
                 .sample = [](auto x, auto, int) { return x; }};
  expect_picture(decode(png_file(rgb)), rgb);
}

TEST_F(Png, EveryTruncationIsAnError) {
  const Bytes file = any_png();
  for (std::size_t size = 8; size < file.size(); ++size) {
    expect_error<InvalidArgument>(
        [&] { decode(Bytes(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(size))); },
        {"expected a whole PNG picture, got a broken one"});
  }
}

TEST_F(Png, DamageIsAnErrorOrAPicture) {
  const Bytes file = any_png();
  Random random(5);
  for (int round = 0; round < 2000; ++round) {
    Bytes damaged = file;
    for (int i = 0; i < 3; ++i) {
      damaged[static_cast<std::size_t>(random.integer(8, static_cast<std::int64_t>(file.size()) - 1))] =
          static_cast<std::uint8_t>(random.bits());
    }
    try {
      const Image image = decode(damaged);
      EXPECT_EQ(image.rgb.size(),
                std::size_t{3} * static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.height));
    } catch (const InvalidArgument&) {
    }
  }
}

TEST_F(Png, SizeIsCheckedBeforeMemoryIsTaken) {
  PngPicture huge{.width = 1, .height = 1, .sample = [](auto, auto, int) { return 0U; }};
  Bytes file = png_file(huge);
  Bytes header;
  for (const std::uint32_t value : {20'000U, 20'000U}) testing_support::put32(header, value);
  for (const int value : {8, 2, 0, 0, 0}) header.push_back(static_cast<std::uint8_t>(value));
  Bytes claiming(file.begin(), file.begin() + 8);
  testing_support::put_chunk(claiming, "IHDR", header);
  claiming.insert(claiming.end(), file.begin() + 33, file.end());
  expect_error<InvalidArgument>([&] { decode(claiming, 178'956'970); },
                                {"expected at most 178956970 pixels, got 20000 x 20000"});
  EXPECT_EQ(decode(any_png(), 45).width, 9);
  expect_error<InvalidArgument>([&] { decode(any_png(), 44); }, {"expected at most 44 pixels, got 9 x 5"});
}

TEST_F(Jpeg, ColoursAreThoseOfPillow) {
  for (const JpegSample& sample : jpeg_samples()) {
    SCOPED_TRACE(sample.name);
    const Image image = decode(sample.bytes);
    ASSERT_EQ(image.width, 32);
    ASSERT_EQ(image.height, 32);
    for (std::size_t square = 0; square < 4; ++square) {
      const std::size_t x = 8 + 16 * (square % 2);
      const std::size_t y = 8 + 16 * (square / 2);
      for (std::size_t c = 0; c < 3; ++c) {
        // Versions of libjpeg round the inverse transform and the colour conversion by one level each.
        EXPECT_NEAR(image.rgb[3 * (y * 32 + x) + c], sample.colours[square][c], 2) << square << ' ' << c;
      }
    }
  }
}

TEST_F(Jpeg, TruncationIsAnError) {
  for (const JpegSample& sample : jpeg_samples()) {
    SCOPED_TRACE(sample.name);
    for (std::size_t size = 3; size + 2 < sample.bytes.size(); size += 7) {
      expect_error<InvalidArgument>(
          [&] { decode(Bytes(sample.bytes.begin(), sample.bytes.begin() + static_cast<std::ptrdiff_t>(size))); },
          {"expected a whole JPEG picture, got a broken one"});
    }
  }
}

TEST_F(Jpeg, DamageIsAnErrorOrAPicture) {
  Random random(7);
  for (const JpegSample& sample : jpeg_samples()) {
    for (int round = 0; round < 500; ++round) {
      Bytes damaged = sample.bytes;
      for (int i = 0; i < 2; ++i) {
        damaged[static_cast<std::size_t>(random.integer(3, static_cast<std::int64_t>(damaged.size()) - 1))] =
            static_cast<std::uint8_t>(random.bits());
      }
      try {
        const Image image = decode(damaged);
        EXPECT_EQ(image.rgb.size(),
                  std::size_t{3} * static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.height));
      } catch (const InvalidArgument&) {
      }
    }
  }
  expect_error<InvalidArgument>([&] { decode(jpeg_samples().front().bytes, 1023); },
                                {"expected at most 1023 pixels, got 32 x 32"});
}

TEST(Ppm, PixelsAreTaken) {
  const Image image = decode(bytes_of("P6\n# a comment\n2 # another\n 1\t255\nabcdefREST"));
  EXPECT_EQ(image.width, 2);
  EXPECT_EQ(image.height, 1);
  EXPECT_EQ(image.rgb, bytes_of("abcdef"));
  EXPECT_EQ(image.view().row_bytes, 6);
}

TEST(Ppm, BrokenFiles) {
  for (const char* text : {"P6", "P6 ", "P6 2", "P6 2 1", "P6 2 1 255", "P6 2 1 255\nabcde", "P6 two 1 255\nabcdef",
                           "P6 #", "P6 99999999999999999999 1 255\n"}) {
    expect_error<InvalidArgument>([&] { decode(bytes_of(text)); }, {"expected a whole PPM picture, got a broken one"});
  }
  for (const char* text :
       {"P6 0 1 255\n", "P6 -2 1 255\nabcdef", "P6 20000 20000 255\n", "P6 4000000000 4000000000 255\n"}) {
    expect_error<InvalidArgument>([&] { decode(bytes_of(text)); }, {"expected at most 1000000 pixels"});
  }
  expect_error<UnsupportedError>([&] { decode(bytes_of("P6 1 1 65535\nabcdef")); }, {"expected 8 bits", "65535"});
}

TEST(Decode, OtherBytes) {
  for (const char* text : {"", "P", "P5 1 1 255\na", "GIF89a", "BM", "\x89PNG", "\xff\xd8"}) {
    expect_error<InvalidArgument>([&] { decode(bytes_of(text)); }, {"expected PPM (P6), PNG or JPEG"});
  }
}

}  // namespace
}  // namespace vila
