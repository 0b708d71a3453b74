// Residual sums: one rounding each, in place or not, equal bits on every table.
#include <cmath>

#include "kernels/kernel_test.h"
#include "support/random.h"

namespace vila::kernels {
namespace {

using testing_support::Random;

class Elementwise : public KernelTest {};

TEST_P(Elementwise, AddIsTheSumRoundedOnce) {
  for (const std::int64_t n : {0, 1, 15, 16, 17, 64, 1001}) {
    Random random(static_cast<std::uint64_t>(n));
    std::vector<float> x = random.normals(n);
    const std::vector<float> y = random.normals(n);
    GuardedOutput out(1, n, n);
    table().add(x.data(), y.data(), out.data(), n);
    if (n > 0) {
      ASSERT_TRUE(out.written_exactly()) << n;
    }
    std::vector<float> expected;
    for (std::int64_t i = 0; i < n; ++i)
      expected.push_back(x[static_cast<std::size_t>(i)] + y[static_cast<std::size_t>(i)]);
    for (std::int64_t i = 0; i < n; ++i) ASSERT_EQ(out.at(0, i), expected[static_cast<std::size_t>(i)]);
    table().add(x.data(), y.data(), x.data(), n);
    ASSERT_TRUE(same_bits(x, expected));
  }
}

TEST_P(Elementwise, AddKeepsSignsOfZeroAndSubnormals) {
  const std::vector<float> x = {-0.0F, 0.0F, -0.0F, 0x1p-149F, 0x1p-126F, 3.4e38F};
  const std::vector<float> y = {-0.0F, -0.0F, 0.0F, 0x1p-149F, -0x1p-149F, -3.4e38F};
  std::vector<float> out(x.size());
  table().add(x.data(), y.data(), out.data(), static_cast<std::int64_t>(x.size()));
  const std::vector<float> expected = {-0.0F, 0.0F, 0.0F, 0x1p-148F, 0x1p-126F - 0x1p-149F, 0.0F};
  EXPECT_TRUE(same_bits(out, expected));
}

TEST_P(Elementwise, ScaleAddIsOneFusedMultiplyAdd) {
  for (const std::int64_t c : {1, 15, 16, 17, 100, 1024}) {
    Random random(static_cast<std::uint64_t>(c));
    const std::int64_t rows = 5;
    std::vector<float> x = random.normals(rows * c);
    const std::vector<float> y = random.normals(rows * c);
    const std::vector<float> scale = random.normals(c);
    std::vector<float> expected;
    for (std::size_t i = 0; i < x.size(); ++i)
      expected.push_back(std::fma(scale[i % static_cast<std::size_t>(c)], y[i], x[i]));
    for (const std::vector<Range>& ranges : range_splits(rows)) {
      GuardedOutput out(rows, c, c);
      for (const Range range : ranges) table().scale_add(x.data(), y.data(), scale.data(), out.data(), range, c);
      ASSERT_TRUE(out.written_exactly()) << c;
      ASSERT_TRUE(same_bits(std::span<const float>(out.data(), expected.size()), std::span<const float>(expected)))
          << c;
    }
    table().scale_add(x.data(), y.data(), scale.data(), x.data(), {0, rows}, c);
    ASSERT_TRUE(same_bits(x, expected)) << c;
  }
}

VILA_FOR_EVERY_TABLE(Elementwise);

}  // namespace
}  // namespace vila::kernels
