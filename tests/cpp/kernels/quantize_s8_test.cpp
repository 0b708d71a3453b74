// Rounding of activations to int8: the error of a value, the sums, padding, extremes, and equal bits on every table.
#include <cmath>
#include <limits>

#include "kernels/kernel_test.h"
#include "support/random.h"

namespace vila::kernels {
namespace {

using testing_support::Random;

struct Quantized {
  std::vector<std::int8_t> q;
  std::vector<float> scale;
  std::vector<std::int32_t> sum;
  std::vector<float> weighted;
};

Quantized quantize(const KernelTable& table, const std::vector<float>& x, std::int64_t m, std::int64_t k,
                   std::int64_t stride, std::int64_t group, const std::vector<Range>& ranges, std::int64_t parts = 1) {
  const std::int64_t k_padded = (k + group * parts - 1) / (group * parts) * (group * parts);
  Quantized out;
  out.q.resize(static_cast<std::size_t>(m * k_padded), std::int8_t{99});
  out.scale.resize(static_cast<std::size_t>(m * k_padded / group), -1.0F);
  out.sum.resize(out.scale.size(), 12345);
  out.weighted.resize(out.scale.size() / static_cast<std::size_t>(parts), -1.0F);
  const QuantizeArgs args{x.data(), stride,   out.q.data(), out.scale.data(), out.sum.data(), out.weighted.data(),
                          k,        k_padded, group,        group * parts};
  for (const Range range : ranges) table.quantize_s8(args, range);
  return out;
}

void expect_same(const Quantized& actual, const Quantized& expected) {
  EXPECT_TRUE(same_bits(actual.q, expected.q));
  EXPECT_TRUE(same_bits(actual.scale, expected.scale));
  EXPECT_TRUE(same_bits(actual.sum, expected.sum));
  EXPECT_TRUE(same_bits(actual.weighted, expected.weighted));
}

class QuantizeS8 : public KernelTest {};

// The kernel multiplies by 127 / max: three roundings of at most 127 steps beside the half step of rounding itself.
TEST_P(QuantizeS8, RoundsEveryValueToItsNearestStep) {
  Random random(1);
  for (const std::int64_t group : {16, 32, 64, 128, 384}) {
    for (const std::int64_t k : {1, 15, 17, 31, 64, 100, 128, 129, 300, 384}) {
      const std::int64_t m = 5;
      const std::int64_t stride = k + 3;
      const std::int64_t k_padded = (k + group - 1) / group * group;
      const std::vector<float> x = random.normals((m - 1) * stride + k);
      const Quantized out = quantize(table(), x, m, k, stride, group, {{0, m}});
      for (std::int64_t row = 0; row < m; ++row) {
        for (std::int64_t g = 0; g < k_padded / group; ++g) {
          double largest = 0;
          for (std::int64_t c = g * group; c < (g + 1) * group && c < k; ++c) {
            largest = std::max(largest, std::abs(static_cast<double>(x[row * stride + c])));
          }
          const std::int64_t at = row * (k_padded / group) + g;
          ASSERT_EQ(out.scale[at], static_cast<float>(largest) / 127.0F);
          std::int32_t sum = 0;
          for (std::int64_t c = g * group; c < (g + 1) * group; ++c) {
            const int q = out.q[row * k_padded + c];
            sum += q;
            const double exact = c < k && largest > 0 ? x[row * stride + c] * 127.0 / largest : 0.0;
            ASSERT_LE(std::abs(q - exact), 0.5 + 127 * 3 * 0x1p-24)
                << "k " << k << " group " << group << " column " << c;
            ASSERT_LE(std::abs(q), 127);
          }
          ASSERT_EQ(out.sum[at], sum);
        }
      }
    }
  }
}

TEST_P(QuantizeS8, EqualsTheScalarTableUnderEverySplitOfTheRows) {
  Random random(2);
  for (const std::int64_t k : {7, 64, 200, 1152}) {
    const std::int64_t m = 9;
    std::vector<float> x = random.normals(m * k);
    for (float& value : x) value *= 30;
    const Quantized expected = quantize(scalar(), x, m, k, k, 64, {{0, m}});
    expect_same(quantize(table(), x, m, k, k, 64, {{0, m}}), expected);
    for (const std::vector<Range>& ranges : range_splits(m))
      expect_same(quantize(table(), x, m, k, k, 64, ranges), expected);
  }
}

// One chain of at most 4 fused multiply-adds over the activation groups of a weight group.
TEST_P(QuantizeS8, WeighsTheSumsOfAWeightGroup) {
  Random random(3);
  const std::int64_t m = 4;
  const std::int64_t k = 300;
  const std::vector<float> x = random.normals(m * k);
  for (const std::int64_t parts : {1, 2, 4}) {
    const Quantized out = quantize(table(), x, m, k, k, 32, {{0, m}}, parts);
    expect_same(out, quantize(scalar(), x, m, k, k, 32, {{0, m}}, parts));
    for (std::size_t g = 0; g < out.weighted.size(); ++g) {
      double expected = 0;
      double magnitude = 0;
      for (std::size_t s = g * static_cast<std::size_t>(parts); s < (g + 1) * static_cast<std::size_t>(parts); ++s) {
        expected += static_cast<double>(out.scale[s]) * out.sum[s];
        magnitude += std::abs(static_cast<double>(out.scale[s]) * out.sum[s]);
      }
      ASSERT_NEAR(out.weighted[g], expected, 1.001 * static_cast<double>(parts) * 0x1p-24 * magnitude) << parts;
    }
  }
}

TEST_P(QuantizeS8, BreaksTiesToEven) {
  std::vector<float> x(32, 0.0F);
  x[0] = 127.0F;  // scale 1
  x[1] = 0.5F;
  x[2] = 1.5F;
  x[3] = 2.5F;
  x[4] = -0.5F;
  x[5] = -1.5F;
  x[6] = 126.5F;
  const Quantized out = quantize(table(), x, 1, 32, 32, 32, {{0, 1}});
  const std::vector<int> expected = {127, 0, 2, 2, 0, -2, 126};
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(out.q[i], expected[i]) << i;
  EXPECT_EQ(out.scale[0], 1.0F);
}

TEST_P(QuantizeS8, GroupsOfZerosHaveScaleZero) {
  std::vector<float> x(64, -0.0F);
  x[40] = -3.0F;
  const Quantized out = quantize(table(), x, 1, 64, 64, 32, {{0, 1}});
  EXPECT_EQ(out.scale[0], 0.0F);
  EXPECT_EQ(out.sum[0], 0);
  for (std::size_t i = 0; i < 32; ++i) EXPECT_EQ(out.q[i], 0);
  EXPECT_EQ(out.q[40], -127);
  EXPECT_EQ(out.sum[1], -127);
}

// The largest magnitude is 127 or -127 at every size of number; numbers too small for 127 / max to be finite count as
// 0.
TEST_P(QuantizeS8, HandlesHugeTinyAndSubnormalRows) {
  for (int exponent = -149; exponent <= 127; ++exponent) {
    std::vector<float> x(48, 0.0F);
    x[0] = std::ldexp(1.0F, exponent);
    x[17] = -x[0];
    x[33] = x[0] / 2;
    const Quantized out = quantize(table(), x, 1, 48, 48, 48, {{0, 1}});
    ASSERT_TRUE(std::isfinite(out.scale[0])) << exponent;
    const double error = std::abs(static_cast<double>(out.q[0]) * out.scale[0] - x[0]);
    ASSERT_LE(error, std::max(0x1p-100, std::abs(x[0]) * 0x1p-20)) << "2^" << exponent << ": q " << +out.q[0];
    ASSERT_EQ(out.q[17], -out.q[0]) << "2^" << exponent;
    ASSERT_EQ(out.sum[0], out.q[0] + out.q[17] + out.q[33]) << "2^" << exponent;
    expect_same(out, quantize(scalar(), x, 1, 48, 48, 48, {{0, 1}}));
  }
  std::vector<float> x(16, std::numeric_limits<float>::max());
  const Quantized out = quantize(table(), x, 1, 16, 16, 16, {{0, 1}});
  for (const std::int8_t q : out.q) EXPECT_EQ(q, 127);
}

// A whole row of int8 shares one group: the sum is exact far beyond the rows of any model.
TEST_P(QuantizeS8, SumsWholeRowsExactly) {
  const std::int64_t k = 30000;
  const std::vector<float> x(static_cast<std::size_t>(k), -2.0F);
  const std::int64_t group = (k + 127) / 128 * 128;
  const Quantized out = quantize(table(), x, 1, k, k, group, {{0, 1}});
  EXPECT_EQ(out.sum[0], -127 * k);
}

VILA_FOR_EVERY_TABLE(QuantizeS8);

}  // namespace
}  // namespace vila::kernels
