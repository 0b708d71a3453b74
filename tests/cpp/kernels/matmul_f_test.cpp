// f32 and f16 products: against the double reference, bit for bit against the scalar table, and under every split.
#include <string>

#include "kernels/kernel_test.h"
#include "reference/reference.h"
#include "support/random.h"

namespace vila::kernels {
namespace {

using testing_support::Random;

struct Case {
  bool half;
  std::int64_t m, n, k;
  bool bias;

  [[nodiscard]] std::string name() const {
    return std::string(half ? "f16" : "f32") + " m" + std::to_string(m) + " n" + std::to_string(n) + " k" +
           std::to_string(k) + (bias ? " bias" : "");
  }
};

class Operands {
 public:
  Operands(const Case& c, std::uint64_t seed) : case_(c), a_stride_(c.k + static_cast<std::int64_t>(seed % 4)) {
    Random random(seed);
    const std::int64_t values = (c.n + 15) / 16 * 16 * c.k;
    a_ = random.normals((c.m - 1) * a_stride_ + c.k);
    w_ = random.normals(values);
    for (const float w : w_) half_.push_back(reference::double_to_half(w));
    bias_ = random.normals(c.n);
  }

  MatmulFArgs args(float* y, std::int64_t y_stride) const {
    MatmulFArgs p{};
    p.a = a_.data();
    p.a_stride = a_stride_;
    p.w = case_.half ? static_cast<const void*>(half_.data()) : static_cast<const void*>(w_.data());
    p.bias = case_.bias ? bias_.data() : nullptr;
    p.y = y;
    p.m = case_.m;
    p.n = case_.n;
    p.k = case_.k;
    p.y_stride = y_stride;
    return p;
  }

 private:
  Case case_;
  std::int64_t a_stride_;
  std::vector<float> a_, w_, bias_;
  std::vector<std::uint16_t> half_;
};

std::int64_t tiles_of(const Case& c) { return (c.n + 15) / 16; }

void multiply(const KernelTable& table, const Case& c, const Operands& operands, GuardedOutput& y,
              std::int64_t y_stride, const std::vector<Range>& ranges) {
  y.clear();
  const MatmulFArgs args = operands.args(y.data(), y_stride);
  for (const Range range : ranges) (c.half ? table.matmul_f16 : table.matmul_f32)(args, range);
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  int turn = 0;
  for (const bool half : {false, true}) {
    for (const std::int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 33, 65}) {
      for (const std::int64_t n : {1, 15, 16, 17, 64, 81}) {
        for (const std::int64_t k : {1, 3, 127, 128, 129, 300}) cases.push_back({half, m, n, k, turn++ % 2 == 0});
      }
    }
  }
  return cases;
}

class MatmulF : public KernelTest {};

TEST_P(MatmulF, EqualsTheScalarTableBitForBit) {
  std::uint64_t seed = 0;
  for (const Case& c : all_cases()) {
    const Operands operands(c, ++seed);
    const std::int64_t stride = c.n + static_cast<std::int64_t>(seed % 3) * 7;
    GuardedOutput actual(c.m, c.n, stride);
    GuardedOutput expected(c.m, c.n, stride);
    multiply(table(), c, operands, actual, stride, {{0, tiles_of(c)}});
    multiply(scalar(), c, operands, expected, stride, {{0, tiles_of(c)}});
    ASSERT_TRUE(same_bits(actual.all(), expected.all())) << c.name();
    ASSERT_TRUE(actual.written_exactly()) << c.name();
  }
}

// A chain of k fused multiply-adds and one addition of the bias: relative to the absolute terms k + 1 roundings.
TEST_P(MatmulF, StaysWithinTheRoundingErrorOfTheReference) {
  std::uint64_t seed = 2000;
  for (const Case& c : all_cases()) {
    if (++seed % 4 != 0) continue;
    const Operands operands(c, seed);
    GuardedOutput y(c.m, c.n, c.n);
    multiply(table(), c, operands, y, c.n, {{0, tiles_of(c)}});
    const MatmulFArgs args = operands.args(y.data(), c.n);
    for (std::int64_t m = 0; m < c.m; ++m) {
      for (std::int64_t n = 0; n < c.n; ++n) {
        const reference::Sum expected = (c.half ? reference::matmul_f16 : reference::matmul_f32)(args, m, n);
        const double bound = 1.001 * static_cast<double>(c.k + 1) * reference::kRound * expected.magnitude;
        ASSERT_NEAR(y.at(m, n), expected.value, bound) << c.name() << " at " << m << ", " << n;
      }
    }
  }
}

TEST_P(MatmulF, GivesTheSameBitsUnderEverySplitOfTheTiles) {
  for (const bool half : {false, true}) {
    for (const std::int64_t m : {1, 5, 13, 33}) {
      const Case c{half, m, 16 * 9 + 5, 150, true};
      const Operands operands(c, 5);
      GuardedOutput whole(c.m, c.n, c.n);
      GuardedOutput split(c.m, c.n, c.n);
      multiply(table(), c, operands, whole, c.n, {{0, tiles_of(c)}});
      for (const std::vector<Range>& ranges : range_splits(tiles_of(c))) {
        multiply(table(), c, operands, split, c.n, ranges);
        ASSERT_TRUE(same_bits(split.all(), whole.all())) << c.name();
      }
    }
  }
}

TEST_P(MatmulF, GivesARowTheSameBitsWhateverRowsStandBesideIt) {
  for (const bool half : {false, true}) {
    const Case all{half, 15, 70, 131, true};
    const Operands operands(all, 6);
    GuardedOutput together(all.m, all.n, all.n);
    multiply(table(), all, operands, together, all.n, {{0, tiles_of(all)}});
    for (std::int64_t m = 0; m < all.m; ++m) {
      GuardedOutput alone(1, all.n, all.n);
      MatmulFArgs args = operands.args(alone.data(), all.n);
      args.m = 1;
      args.a += m * args.a_stride;
      (half ? table().matmul_f16 : table().matmul_f32)(args, {0, tiles_of(all)});
      for (std::int64_t n = 0; n < all.n; ++n) {
        ASSERT_EQ(std::bit_cast<std::uint32_t>(alone.at(0, n)), std::bit_cast<std::uint32_t>(together.at(m, n)));
      }
    }
  }
}

VILA_FOR_EVERY_TABLE(MatmulF);

}  // namespace
}  // namespace vila::kernels
