// The way from bytes to the tower's numbers, step by step.
#include "image/processor.h"

#include <algorithm>
#include <vector>

#include <gtest/gtest.h>

#include "image/resize.h"
#include "support/expect_error.h"
#include "support/random.h"
#include "vila/error.h"

namespace vila {
namespace {

using testing_support::expect_error;
using testing_support::Random;

constexpr std::array<float, 3> kMean = {0.485F, 0.456F, 0.406F};
constexpr std::array<float, 3> kStd = {0.229F, 0.224F, 0.225F};

Image random_image(std::int32_t width, std::int32_t height) {
  Random random(21);
  Image image{{}, width, height};
  image.rgb.resize(static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 3);
  for (std::uint8_t& byte : image.rgb) byte = static_cast<std::uint8_t>(random.bits());
  return image;
}

std::vector<float> run(const ImageSpec& spec, const Image& image) {
  std::vector<float> out(3 * static_cast<std::size_t>(spec.size) * static_cast<std::size_t>(spec.size));
  ImageProcessor(spec).run(image.view(), out);
  return out;
}

// float32(byte * (1/255) in double), then minus mean, divided by std, each rounded to float.
void expect_normalised(const std::vector<float>& out, const Image& square, const ImageSpec& spec) {
  const std::size_t pixels = static_cast<std::size_t>(spec.size) * static_cast<std::size_t>(spec.size);
  for (std::size_t c = 0; c < 3; ++c) {
    for (std::size_t i = 0; i < pixels; ++i) {
      const auto scaled = static_cast<float>(square.rgb[3 * i + c] * (1.0 / 255.0));
      const float centred = scaled - spec.mean[c];
      ASSERT_EQ(out[c * pixels + i], centred / spec.std[c]) << c << ' ' << i;
    }
  }
}

TEST(Processor, EveryByteOfEveryChannel) {
  Image image{{}, 16, 16};
  for (int i = 0; i < 256; ++i) {
    for (int c = 0; c < 3; ++c) image.rgb.push_back(static_cast<std::uint8_t>(i + 85 * c));
  }
  for (const auto& [mean, std] :
       {std::pair{kMean, kStd}, {std::array{0.5F, 0.5F, 0.5F}, std::array{0.5F, 0.5F, 0.5F}}}) {
    const ImageSpec spec{.size = 16, .mean = mean, .std = std};
    expect_normalised(run(spec, image), image, spec);
  }
  const ImageSpec half{.size = 16, .mean = {0.5F, 0.5F, 0.5F}, .std = {0.5F, 0.5F, 0.5F}};
  EXPECT_EQ(run(half, image)[0], -1.0F);
  EXPECT_EQ(run(half, image)[255], 1.0F);
}

TEST(Processor, ResizeSquashes) {
  const Image image = random_image(31, 12);
  const ImageSpec spec{.size = 20, .mean = kMean, .std = kStd};
  expect_normalised(run(spec, image), resize_bicubic(image.view(), 20, 20), spec);
}

TEST(Processor, PadCentresOnTheMeanColour) {
  for (const auto& [width, height] : {std::pair{31, 12}, {12, 31}, {5, 4}, {4, 5}, {9, 9}, {1, 8}}) {
    const Image image = random_image(width, height);
    const std::int32_t side = std::max(width, height);
    Image square{{}, side, side};
    for (std::int32_t y = 0; y < side; ++y) {
      for (std::int32_t x = 0; x < side; ++x) {
        const std::int32_t from_x = x - (side - width) / 2;
        const std::int32_t from_y = y - (side - height) / 2;
        const bool inside = from_x >= 0 && from_x < width && from_y >= 0 && from_y < height;
        static constexpr int kColour[3] = {123, 116, 103};  // int(255 * mean)
        for (std::int32_t c = 0; c < 3; ++c) {
          square.rgb.push_back(inside ? image.rgb[static_cast<std::size_t>((from_y * width + from_x) * 3 + c)]
                                      : static_cast<std::uint8_t>(kColour[c]));
        }
      }
    }
    const ImageSpec spec{.size = side, .mode = ImageSpec::Mode::pad, .mean = kMean, .std = kStd};
    expect_normalised(run(spec, image), square, spec);
    const ImageSpec smaller{.size = 7, .mode = ImageSpec::Mode::pad, .mean = kMean, .std = kStd};
    expect_normalised(run(smaller, image), resize_bicubic(square.view(), 7, 7), smaller);
  }
}

TEST(Processor, TheOutputMustFit) {
  const Image image = random_image(4, 4);
  std::vector<float> out(3 * 16 - 1);
  const ImageSpec spec{.size = 4, .mean = kMean, .std = kStd};
  expect_error<InvalidArgument>([&] { ImageProcessor(spec).run(image.view(), out); }, {"expected 48 numbers, got 47"});
}

}  // namespace
}  // namespace vila
