// The geometry of S2 against plain loops in double precision.
#include "image/s2_resize.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "support/random.h"

namespace vila {
namespace {

using testing_support::Random;

std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

// Keys' kernel with a = -0.75.
double keys(double x) {
  x = std::fabs(x);
  if (x <= 1) return 1.25 * x * x * x - 2.25 * x * x + 1;
  if (x < 2) return -0.75 * x * x * x + 3.75 * x * x - 6 * x + 3;
  return 0;
}

double bicubic(const std::vector<float>& planes, std::int64_t in, std::int64_t c, double centre_y, double centre_x) {
  const auto y0 = static_cast<std::int64_t>(std::floor(centre_y));
  const auto x0 = static_cast<std::int64_t>(std::floor(centre_x));
  double sum = 0;
  for (std::int64_t y = y0 - 1; y <= y0 + 2; ++y) {
    for (std::int64_t x = x0 - 1; x <= x0 + 2; ++x) {
      const std::int64_t inside_y = std::clamp<std::int64_t>(y, 0, in - 1);
      const std::int64_t inside_x = std::clamp<std::int64_t>(x, 0, in - 1);
      sum += keys(centre_y - static_cast<double>(y)) * keys(centre_x - static_cast<double>(x)) *
             static_cast<double>(planes[at((c * in + inside_y) * in + inside_x)]);
    }
  }
  return sum;
}

TEST(S2Resize, BicubicIsTheConvolutionWithoutAntialiasing) {
  for (const auto& [in, out] :
       {std::pair<std::int64_t, std::int64_t>{196, 98}, {98, 196}, {8, 3}, {3, 8}, {1, 4}, {5, 7}}) {
    SCOPED_TRACE(testing::Message() << in << " to " << out);
    const std::vector<float> planes = Random(31).uniforms(3 * in * in, -1.0F, 1.0F);
    std::vector<float> found(at(3 * out * out));
    resize_f32_bicubic(planes.data(), in, found.data(), out);
    const double scale = static_cast<double>(in) / static_cast<double>(out);
    // The absolute weights of one pass sum to at most 1.75, so of both to 3.1; 20 roundings of values below that, and
    // the fraction of a position below 256, which is off by 2^-17 and moves a weight by at most 1.5 times that, eight
    // times.
    const double bound = 20 * 3.1 * 0x1p-24 + 8 * 1.5 * 0x1p-17;
    for (std::int64_t c = 0; c < 3; ++c) {
      for (std::int64_t y = 0; y < out; ++y) {
        for (std::int64_t x = 0; x < out; ++x) {
          const double centre_y = (static_cast<double>(y) + 0.5) * scale - 0.5;
          const double centre_x = (static_cast<double>(x) + 0.5) * scale - 0.5;
          ASSERT_NEAR(found[at((c * out + y) * out + x)], bicubic(planes, in, c, centre_y, centre_x), bound)
              << c << ' ' << y << ' ' << x;
        }
      }
    }
  }
}

TEST(S2Resize, TheSameSizeIsACopy) {
  const std::vector<float> planes = Random(32).normals(3 * 9 * 9);
  std::vector<float> found(planes.size());
  resize_f32_bicubic(planes.data(), 9, found.data(), 9);
  EXPECT_EQ(found, planes);
}

TEST(S2Resize, TilesCoverThePicture) {
  constexpr std::int64_t kSide = 12, kTile = 4;
  std::vector<float> planes(3 * kSide * kSide);
  for (std::size_t i = 0; i < planes.size(); ++i) planes[i] = static_cast<float>(i);
  std::vector<float> together(planes.size(), -1.0F);
  std::vector<float> tile(3 * kTile * kTile);
  for (std::int64_t row = 0; row < kSide / kTile; ++row) {
    for (std::int64_t col = 0; col < kSide / kTile; ++col) {
      cut_tile(planes.data(), kSide, row, col, kTile, tile.data());
      for (std::int64_t c = 0; c < 3; ++c) {
        for (std::int64_t y = 0; y < kTile; ++y) {
          for (std::int64_t x = 0; x < kTile; ++x) {
            together[at((c * kSide + row * kTile + y) * kSide + col * kTile + x)] =
                tile[at((c * kTile + y) * kTile + x)];
          }
        }
      }
    }
  }
  EXPECT_EQ(together, planes);
}

TEST(S2Resize, AreaIsTheMeanOfTheCells) {
  constexpr std::int64_t kChannels = 5, kInStride = 8, kOutStride = 11;
  for (const auto& [in, out] :
       {std::pair<std::int64_t, std::int64_t>{14, 7}, {7, 7}, {21, 7}, {10, 7}, {7, 3}, {1, 1}}) {
    SCOPED_TRACE(testing::Message() << in << " to " << out);
    const std::vector<float> map = Random(33).normals(in * in * kInStride);
    std::vector<float> found(at(out * out * kOutStride), 77.0F);
    area_resize(map.data(), in, kInStride, kChannels, found.data(), out, kOutStride);
    for (std::int64_t y = 0; y < out; ++y) {
      for (std::int64_t x = 0; x < out; ++x) {
        // Cell (y, x) covers floor(y in / out) .. ceil((y + 1) in / out), as adaptive average pooling has it.
        const std::int64_t top = y * in / out, bottom = ((y + 1) * in + out - 1) / out;
        const std::int64_t left = x * in / out, right = ((x + 1) * in + out - 1) / out;
        for (std::int64_t c = 0; c < kOutStride; ++c) {
          const float value = found[at((y * out + x) * kOutStride + c)];
          if (c >= kChannels) {
            ASSERT_EQ(value, 77.0F);  // the room between neighbours is left alone
            continue;
          }
          double sum = 0, size = 0;
          for (std::int64_t j = top; j < bottom; ++j) {
            for (std::int64_t i = left; i < right; ++i, ++size)
              sum += static_cast<double>(map[at((j * in + i) * kInStride + c)]);
          }
          // A sum of n terms below 6 in f32, and a division.
          ASSERT_NEAR(value, sum / size, (size + 1) * 6 * 0x1p-24);
        }
      }
    }
  }
}

}  // namespace
}  // namespace vila
