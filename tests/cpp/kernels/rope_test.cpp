// The rotary embedding: values, positions, strides, and equal bits between tables and splits.
#include <cmath>

#include "kernels/kernel_test.h"
#include "reference/reference.h"
#include "support/random.h"

namespace vila::kernels {
namespace {

using testing_support::Random;

struct Input {
  Input(std::int64_t m, std::int64_t heads, std::int64_t dim, std::int64_t first)
      : rows(m), n_heads(heads), head_dim(dim), first_position(first), stride(heads * dim + 3) {
    Random random(static_cast<std::uint64_t>(dim * 100 + heads));
    x = random.normals(m * stride);
    for (std::int64_t i = 0; i < (first + m) * (dim / 2); ++i) {
      const double angle = random.uniform(0.0F, 6.3F);
      cosine.push_back(static_cast<float>(std::cos(angle)));
      sine.push_back(static_cast<float>(std::sin(angle)));
    }
  }

  RopeArgs args(float* values) const {
    return {values, cosine.data(), sine.data(), stride, n_heads, head_dim, first_position};
  }

  std::int64_t rows, n_heads, head_dim, first_position, stride;
  std::vector<float> x, cosine, sine;
};

std::vector<Input> inputs() {
  std::vector<Input> all;
  for (const std::int64_t dim : {2, 6, 16, 30, 32, 34, 64, 80, 128, 256}) {
    for (const std::int64_t heads : {1, 3}) all.emplace_back(5, heads, dim, heads == 1 ? 0 : 11);
  }
  return all;
}

class Rope : public KernelTest {};

// One product, one fma: two roundings of the absolute terms.
TEST_P(Rope, MatchesTheReferenceAndLeavesTheGapsBetweenRows) {
  for (const Input& input : inputs()) {
    std::vector<float> x = input.x;
    table().rope(input.args(x.data()), {0, input.rows});
    std::vector<float> before = input.x;
    for (std::int64_t m = 0; m < input.rows; ++m) {
      const std::vector<double> expected = reference::rope(input.args(before.data()), m);
      for (std::int64_t i = 0; i < input.stride; ++i) {
        const float value = x[static_cast<std::size_t>(m * input.stride + i)];
        if (i >= input.n_heads * input.head_dim) {
          ASSERT_EQ(value, before[static_cast<std::size_t>(m * input.stride + i)]);
          continue;
        }
        const std::int64_t half = input.head_dim / 2;
        const std::int64_t partner = i % input.head_dim < half ? i + half : i - half;
        const double terms = std::abs(before[static_cast<std::size_t>(m * input.stride + i)]) +
                             std::abs(before[static_cast<std::size_t>(m * input.stride + partner)]);
        ASSERT_NEAR(value, expected[static_cast<std::size_t>(i)], 2.01 * reference::kRound * terms) << input.head_dim;
      }
    }
  }
}

TEST_P(Rope, EqualsTheScalarTableUnderEverySplitOfTheRows) {
  for (const Input& input : inputs()) {
    std::vector<float> expected = input.x;
    scalar().rope(input.args(expected.data()), {0, input.rows});
    for (const std::vector<Range>& ranges : range_splits(input.rows)) {
      std::vector<float> actual = input.x;
      for (const Range range : ranges) table().rope(input.args(actual.data()), range);
      ASSERT_TRUE(same_bits(actual, expected)) << input.head_dim;
    }
  }
}

TEST_P(Rope, ARowDependsOnItsAbsolutePositionOnly) {
  const Input input(4, 2, 64, 9);
  std::vector<float> together = input.x;
  table().rope(input.args(together.data()), {0, 4});
  std::vector<float> last(input.x.begin() + 3 * input.stride, input.x.end());
  RopeArgs args = input.args(last.data());
  args.first_position += 3;
  table().rope(args, {0, 1});
  EXPECT_TRUE(same_bits(last, std::vector<float>(together.begin() + 3 * input.stride, together.end())));
}

VILA_FOR_EVERY_TABLE(Rope);

}  // namespace
}  // namespace vila::kernels
