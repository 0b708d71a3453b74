// RMSNorm and LayerNorm against double precision with bounds from the roundings, and bit for bit between the tables.
#include <cmath>

#include "kernels/kernel_test.h"
#include "reference/reference.h"
#include "support/random.h"

namespace vila::kernels {
namespace {

using reference::kRound;
using testing_support::Random;

constexpr std::int64_t kWidths[] = {1, 2, 15, 16, 17, 31, 32, 63, 64, 100, 257, 1152, 2560};

struct Input {
  Input(std::int64_t m, std::int64_t c, std::uint64_t seed) : rows(m), columns(c), stride(c + 5) {
    Random random(seed);
    x = random.normals(m * stride);
    weight = random.normals(c);
    bias = random.normals(c);
  }

  NormArgs args(float* y, std::int64_t y_stride, bool with_bias) const {
    return {x.data(), weight.data(), with_bias ? bias.data() : nullptr, y, stride, y_stride, columns, 1e-5F};
  }

  std::int64_t rows, columns, stride;
  std::vector<float> x, weight, bias;
};

// Roundings of a sum of c values in 16 partial sums, one tree, one division.
double sum_roundings(std::int64_t c) { return static_cast<double>(c) / 16 + 8; }

void expect_rms_norm(const Input& input, const NormArgs& args, const GuardedOutput& y) {
  const double relative =
      1.01 * kRound * (sum_roundings(input.columns) / 2 + 5);  // the root halves the error of its operand
  for (std::int64_t m = 0; m < input.rows; ++m) {
    const std::vector<double> expected = reference::rms_norm(args, m);
    for (std::int64_t c = 0; c < input.columns; ++c) {
      const double value = expected[static_cast<std::size_t>(c)];
      ASSERT_NEAR(y.at(m, c), value, relative * std::abs(value) + 0x1p-149)
          << "width " << input.columns << " column " << c;
    }
  }
}

// The error of the mean shifts every difference; the variance around the rounded mean grows by its square.
void expect_layer_norm(const Input& input, const NormArgs& args, const GuardedOutput& y) {
  for (std::int64_t m = 0; m < input.rows; ++m) {
    const reference::LayerNorm expected = reference::layer_norm(args, m);
    const double shift = kRound * sum_roundings(input.columns) * expected.mean_magnitude;
    const double power = expected.variance + args.eps;
    const double power_error =
        shift * shift + expected.variance * kRound * (sum_roundings(input.columns) + 4) + power * kRound;
    const double factor = 1 / std::sqrt(power);
    const double factor_error = power_error / power / 2 + 3 * kRound;
    for (std::int64_t c = 0; c < input.columns; ++c) {
      const double x = input.x[static_cast<std::size_t>(m * input.stride + c)];
      const double difference = std::abs(x - expected.mean);
      const double weight = std::abs(input.weight[static_cast<std::size_t>(c)]);
      const double value = expected.y[static_cast<std::size_t>(c)];
      const double bound =
          weight * factor * (shift + difference * (kRound * 3 + factor_error)) + std::abs(value) * kRound;
      ASSERT_NEAR(y.at(m, c), value, 1.05 * bound + 0x1p-149) << "width " << input.columns << " column " << c;
    }
  }
}

class Norm : public KernelTest {};

TEST_P(Norm, RmsNormMatchesTheReference) {
  for (const std::int64_t c : kWidths) {
    const Input input(4, c, static_cast<std::uint64_t>(c));
    GuardedOutput y(4, c, c + 2);
    const NormArgs args = input.args(y.data(), c + 2, false);
    table().rms_norm(args, {0, 4});
    ASSERT_TRUE(y.written_exactly()) << c;
    expect_rms_norm(input, args, y);
  }
}

TEST_P(Norm, LayerNormMatchesTheReference) {
  for (const std::int64_t c : kWidths) {
    for (const bool bias : {false, true}) {
      const Input input(4, c, static_cast<std::uint64_t>(c));
      GuardedOutput y(4, c, c + 2);
      const NormArgs args = input.args(y.data(), c + 2, bias);
      table().layer_norm(args, {0, 4});
      ASSERT_TRUE(y.written_exactly()) << c;
      expect_layer_norm(input, args, y);
    }
  }
}

TEST_P(Norm, EqualsTheScalarTableUnderEverySplitOfTheRows) {
  for (const std::int64_t c : kWidths) {
    const Input input(7, c, static_cast<std::uint64_t>(c) + 99);
    for (const bool layer : {false, true}) {
      const auto kernel = layer ? table().layer_norm : table().rms_norm;
      GuardedOutput expected(7, c, c);
      (layer ? scalar().layer_norm : scalar().rms_norm)(input.args(expected.data(), c, layer), {0, 7});
      for (const std::vector<Range>& ranges : range_splits(7)) {
        GuardedOutput actual(7, c, c);
        for (const Range range : ranges) kernel(input.args(actual.data(), c, layer), range);
        ASSERT_TRUE(same_bits(actual.all(), expected.all())) << "width " << c;
      }
    }
  }
}

TEST_P(Norm, WorksInPlace) {
  for (const std::int64_t c : kWidths) {
    const Input input(3, c, 5);
    for (const bool layer : {false, true}) {
      const auto kernel = layer ? table().layer_norm : table().rms_norm;
      GuardedOutput apart(3, c, input.stride);
      kernel(input.args(apart.data(), input.stride, layer), {0, 3});
      std::vector<float> x = input.x;
      NormArgs args = input.args(x.data(), input.stride, layer);
      args.x = x.data();
      kernel(args, {0, 3});
      for (std::int64_t m = 0; m < 3; ++m) {
        for (std::int64_t i = 0; i < c; ++i)
          ASSERT_EQ(x[static_cast<std::size_t>(m * input.stride + i)], apart.at(m, i));
      }
    }
  }
}

// A large mean beside a small spread: squares of the values instead of the differences would lose every digit.
TEST_P(Norm, LayerNormDoesNotCancel) {
  Input input(2, 1152, 3);
  for (float& x : input.x) x = 1000 + 0.01F * x;
  GuardedOutput y(2, 1152, 1152);
  const NormArgs args = input.args(y.data(), 1152, true);
  table().layer_norm(args, {0, 2});
  expect_layer_norm(input, args, y);
}

TEST_P(Norm, RowsOfZerosSubnormalsAndLargeNumbersStayFinite) {
  for (const float value : {0.0F, -0.0F, 0x1p-149F, 0x1p-126F, 1e15F}) {
    Input input(1, 40, 4);
    for (std::size_t i = 0; i < input.x.size(); ++i) input.x[i] = i % 2 == 0 ? value : -value;
    for (const bool layer : {false, true}) {
      GuardedOutput actual(1, 40, 40);
      GuardedOutput expected(1, 40, 40);
      (layer ? table().layer_norm : table().rms_norm)(input.args(actual.data(), 40, layer), {0, 1});
      (layer ? scalar().layer_norm : scalar().rms_norm)(input.args(expected.data(), 40, layer), {0, 1});
      for (std::int64_t i = 0; i < 40; ++i) ASSERT_TRUE(std::isfinite(actual.at(0, i))) << value;
      ASSERT_TRUE(same_bits(actual.all(), expected.all())) << value;
    }
  }
}

VILA_FOR_EVERY_TABLE(Norm);

}  // namespace
}  // namespace vila::kernels
