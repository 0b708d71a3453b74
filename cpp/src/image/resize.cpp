#include "image/resize.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "vila/error.h"

namespace vila {
namespace {

constexpr int kPrecisionBits = 32 - 8 - 2;  // 8 bits of pixel and 2 of overshoot leave 22 for the weight

double cubic(double x) {
  constexpr double a = -0.5;
  x = std::fabs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}

/// For every output pixel: its first input pixel, how many, and their weights in fixed point.
struct Taps {
  std::int32_t stride = 0;  // weights per output pixel
  std::vector<std::int32_t> first, count, weights;
};

Taps make_taps(std::int32_t in, std::int32_t out) {
  const double scale = static_cast<double>(in) / out;
  const double filter_scale = std::max(scale, 1.0);
  const double support = 2.0 * filter_scale;
  Taps taps;
  taps.stride = static_cast<std::int32_t>(std::ceil(support)) * 2 + 1;
  taps.weights.resize(static_cast<std::size_t>(taps.stride) * static_cast<std::size_t>(out));
  std::vector<double> weights(static_cast<std::size_t>(taps.stride));
  for (std::int32_t i = 0; i < out; ++i) {
    const double centre = (i + 0.5) * scale;
    const std::int32_t begin = std::max(static_cast<std::int32_t>(centre - support + 0.5), 0);
    const std::int32_t end = std::min(static_cast<std::int32_t>(centre + support + 0.5), in);
    const std::int32_t count = end - begin;
    double sum = 0;
    for (std::int32_t k = 0; k < count; ++k) {
      const double weight = cubic((k + begin - centre + 0.5) * (1.0 / filter_scale));
      weights[static_cast<std::size_t>(k)] = weight;
      sum += weight;
    }
    for (std::int32_t k = 0; k < count; ++k) {
      double weight = weights[static_cast<std::size_t>(k)];
      if (sum != 0.0) weight /= sum;
      weight *= 1 << kPrecisionBits;
      taps.weights[static_cast<std::size_t>(i) * static_cast<std::size_t>(taps.stride) + static_cast<std::size_t>(k)] =
          static_cast<std::int32_t>(weight < 0 ? weight - 0.5 : weight + 0.5);
    }
    taps.first.push_back(begin);
    taps.count.push_back(count);
  }
  return taps;
}

std::uint8_t to_byte(std::int32_t value) {
  return static_cast<std::uint8_t>(std::clamp(value >> kPrecisionBits, 0, 255));
}

// One row of `source` to `width` pixels.
void resize_row(const std::uint8_t* source, const Taps& taps, std::int32_t width, std::uint8_t* out) {
  for (std::int32_t x = 0; x < width; ++x) {
    const std::int32_t* weights = taps.weights.data() + static_cast<std::ptrdiff_t>(x) * taps.stride;
    const std::uint8_t* pixel = source + 3 * static_cast<std::ptrdiff_t>(taps.first[static_cast<std::size_t>(x)]);
    std::int32_t sum[3] = {1 << (kPrecisionBits - 1), 1 << (kPrecisionBits - 1), 1 << (kPrecisionBits - 1)};
    for (std::int32_t k = 0; k < taps.count[static_cast<std::size_t>(x)]; ++k, pixel += 3) {
      for (int channel = 0; channel < 3; ++channel) sum[channel] += pixel[channel] * weights[k];
    }
    for (int channel = 0; channel < 3; ++channel) out[3 * x + channel] = to_byte(sum[channel]);
  }
}

// Row y of the output from rows of `columns` bytes each.
void resize_column(const std::uint8_t* rows, std::size_t columns, const Taps& taps, std::int32_t y, std::uint8_t* out,
                   std::vector<std::int32_t>& sums) {
  const std::int32_t* weights = taps.weights.data() + static_cast<std::ptrdiff_t>(y) * taps.stride;
  std::fill(sums.begin(), sums.end(), 1 << (kPrecisionBits - 1));
  const std::uint8_t* row = rows + static_cast<std::size_t>(taps.first[static_cast<std::size_t>(y)]) * columns;
  for (std::int32_t k = 0; k < taps.count[static_cast<std::size_t>(y)]; ++k, row += columns) {
    const std::int32_t weight = weights[k];
    for (std::size_t x = 0; x < columns; ++x) sums[x] += row[x] * weight;
  }
  for (std::size_t x = 0; x < columns; ++x) out[x] = to_byte(sums[x]);
}

}  // namespace

Image resize_bicubic(ImageView source, std::int32_t width, std::int32_t height) {
  if (source.rgb == nullptr || source.width < 1 || source.height < 1 || width < 1 || height < 1) {
    throw InvalidArgument("[resize] expected sizes of at least 1 x 1, got " + std::to_string(source.width) + " x " +
                          std::to_string(source.height) + " to " + std::to_string(width) + " x " +
                          std::to_string(height));
  }
  const auto columns = static_cast<std::size_t>(width) * 3;
  // A pass that would keep the size is left out, as Pillow leaves it out.
  const bool horizontal = width != source.width;
  const bool vertical = height != source.height;
  std::vector<std::uint8_t> middle(columns * static_cast<std::size_t>(source.height));
  const Taps across = horizontal ? make_taps(source.width, width) : Taps{};
  for (std::int32_t y = 0; y < source.height; ++y) {
    const std::uint8_t* from = source.rgb + y * source.row_bytes;
    std::uint8_t* to = middle.data() + static_cast<std::size_t>(y) * columns;
    if (horizontal) {
      resize_row(from, across, width, to);
    } else {
      std::copy_n(from, columns, to);
    }
  }
  Image result;
  result.width = width;
  result.height = height;
  if (!vertical) {
    result.rgb = std::move(middle);
    return result;
  }
  result.rgb.resize(columns * static_cast<std::size_t>(height));
  const Taps down = make_taps(source.height, height);
  std::vector<std::int32_t> sums(columns);
  for (std::int32_t y = 0; y < height; ++y) {
    resize_column(middle.data(), columns, down, y, result.rgb.data() + static_cast<std::size_t>(y) * columns, sums);
  }
  return result;
}

}  // namespace vila
