// Bicubic resize of bytes against Keys' convolution (a = -0.5) with antialiasing, written out in double precision.
#include "image/resize.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/random.h"
#include "vila/error.h"

namespace vila {
namespace {

using testing_support::expect_error;
using testing_support::Random;

Image random_image(std::int32_t width, std::int32_t height, std::uint64_t seed, bool black_and_white) {
  Random random(seed);
  Image image;
  image.width = width;
  image.height = height;
  image.rgb.resize(static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 3);
  for (std::uint8_t& byte : image.rgb)
    byte = static_cast<std::uint8_t>(black_and_white ? random.bits() % 2 * 255 : random.bits());
  return image;
}

double keys(double x) {
  x = std::fabs(x);
  if (x < 1) return 1.5 * x * x * x - 2.5 * x * x + 1;
  if (x < 2) return -0.5 * x * x * x + 2.5 * x * x - 4 * x + 2;
  return 0;
}

struct Filtered {
  double value = 0;
  std::int32_t taps = 0;
};

// Output pixel `i` of a line of `in` values stretched to `out`: the filter is widened where the line shrinks.
template <class Get>
Filtered filter(std::int32_t in, std::int32_t out, std::int32_t i, Get&& get) {
  const double scale = static_cast<double>(in) / out;
  const double widen = std::max(scale, 1.0);
  const double centre = (i + 0.5) * scale;
  const auto first = std::max(static_cast<std::int32_t>(std::floor(centre - 2 * widen + 0.5)), 0);
  const auto last = std::min(static_cast<std::int32_t>(std::floor(centre + 2 * widen + 0.5)), in);
  double sum = 0, weights = 0;
  for (std::int32_t k = first; k < last; ++k) {
    const double weight = keys((k + 0.5 - centre) / widen);
    weights += weight;
    sum += weight * get(k);
  }
  return {sum / weights, last - first};
}

// Weights are rounded to multiples of 2^-22, so the exact value may be off by 255 * 2^-23 for every tap; only where it
// is that near to a half may the byte be the neighbour.
void expect_rounded(std::uint8_t found, const Filtered& exact) {
  const double clipped = std::clamp(exact.value, 0.0, 255.0);
  const double slack = exact.taps * 255.0 * 0x1p-23 + 1e-9;
  EXPECT_LE(std::fabs(found - clipped), 0.5 + slack);
}

struct Size {
  std::int32_t in, out, other;
};
constexpr Size kSizes[] = {{1, 1, 3},    {1, 7, 2},   {2, 1, 5},    {3, 2, 4},    {5, 98, 3},
                           {98, 5, 3},   {97, 98, 2}, {99, 98, 2},  {640, 98, 2}, {1999, 7, 1},
                           {7, 1999, 1}, {64, 32, 6}, {384, 384, 2}};

TEST(Resize, AcrossIsTheConvolution) {
  for (const bool hard : {false, true}) {
    for (const auto& [in, out, other] : kSizes) {
      SCOPED_TRACE(testing::Message() << in << " to " << out);
      const Image source = random_image(in, other, 11, hard);
      const Image found = resize_bicubic(source.view(), out, other);
      ASSERT_EQ(found.width, out);
      ASSERT_EQ(found.height, other);
      for (std::int32_t y = 0; y < other; ++y) {
        for (std::int32_t x = 0; x < out; ++x) {
          for (std::int32_t c = 0; c < 3; ++c) {
            expect_rounded(found.rgb[static_cast<std::size_t>((y * out + x) * 3 + c)],
                           filter(in, out, x, [&](std::int32_t k) {
                             return source.rgb[static_cast<std::size_t>((y * in + k) * 3 + c)];
                           }));
          }
        }
      }
    }
  }
}

TEST(Resize, DownIsTheConvolution) {
  for (const bool hard : {false, true}) {
    for (const auto& [in, out, other] : kSizes) {
      SCOPED_TRACE(testing::Message() << in << " to " << out);
      const Image source = random_image(other, in, 12, hard);
      const Image found = resize_bicubic(source.view(), other, out);
      for (std::int32_t y = 0; y < out; ++y) {
        for (std::int32_t i = 0; i < other * 3; ++i) {
          expect_rounded(found.rgb[static_cast<std::size_t>(y * other * 3 + i)],
                         filter(in, out, y, [&](std::int32_t k) {
                           return source.rgb[static_cast<std::size_t>(k * other * 3 + i)];
                         }));
        }
      }
    }
  }
}

TEST(Resize, TheHorizontalPassComesFirstAndIsRounded) {
  for (const auto& [width, height, to_width, to_height] : {std::array{133, 253, 98, 98}, std::array{20, 900, 10, 9},
                                                           std::array{900, 20, 9, 10}, std::array{30, 20, 61, 5}}) {
    const Image source = random_image(width, height, 13, true);
    const Image found = resize_bicubic(source.view(), to_width, to_height);
    const Image across = resize_bicubic(source.view(), to_width, height);
    EXPECT_EQ(found.rgb, resize_bicubic(across.view(), to_width, to_height).rgb);
    // The order shows: the other one gives another picture.
    const Image down = resize_bicubic(source.view(), width, to_height);
    EXPECT_NE(found.rgb, resize_bicubic(down.view(), to_width, to_height).rgb);
  }
}

TEST(Resize, TheSameSizeIsACopyAndRowsMayBePadded) {
  const Image source = random_image(7, 5, 14, false);
  EXPECT_EQ(resize_bicubic(source.view(), 7, 5).rgb, source.rgb);
  std::vector<std::uint8_t> padded(5 * 30, 99);
  for (std::size_t y = 0; y < 5; ++y) std::copy_n(source.rgb.data() + y * 21, 21, padded.data() + y * 30);
  const ImageView view{padded.data(), 7, 5, 30};
  EXPECT_EQ(resize_bicubic(view, 7, 5).rgb, source.rgb);
  EXPECT_EQ(resize_bicubic(view, 12, 9).rgb, resize_bicubic(source.view(), 12, 9).rgb);
}

TEST(Resize, OneColourStaysOneColour) {
  Image source = random_image(50, 40, 15, false);
  std::fill(source.rgb.begin(), source.rgb.end(), std::uint8_t{201});
  for (const std::uint8_t byte : resize_bicubic(source.view(), 33, 77).rgb) ASSERT_EQ(byte, 201);
}

TEST(Resize, WrongSizes) {
  const Image source = random_image(2, 2, 16, false);
  expect_error<InvalidArgument>([&] { resize_bicubic(source.view(), 0, 2); },
                                {"expected sizes of at least 1 x 1", "to 0 x 2"});
  expect_error<InvalidArgument>([&] { resize_bicubic(source.view(), 2, -1); }, {"to 2 x -1"});
  expect_error<InvalidArgument>([&] { resize_bicubic({nullptr, 2, 2, 6}, 2, 2); }, {"expected"});
}

}  // namespace
}  // namespace vila
