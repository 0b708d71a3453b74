// int4 and int8 products: against the double reference, bit for bit against the scalar table, and under every split.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>

#include "kernels/kernel_test.h"
#include "reference/reference.h"
#include "support/random.h"

namespace vila::kernels {
namespace {

using testing_support::Random;

enum class Zero : std::uint8_t { neutral, integer, offset };

struct Case {
  bool int4;
  std::int64_t m, n, k_padded, group;
  Zero zero;
  bool bias;

  /// int4 has an activation scale every 32 columns, int8 too unless its group is the whole row.
  [[nodiscard]] std::int64_t a_group() const {
    return int4 || (group <= 128 && k_padded > group) ? kActivationGroup : group;
  }

  [[nodiscard]] std::string name() const {
    return std::string(int4 ? "w4" : "w8") + " m" + std::to_string(m) + " n" + std::to_string(n) + " k" +
           std::to_string(k_padded) + " g" + std::to_string(group) + " zero" + std::to_string(static_cast<int>(zero)) +
           (bias ? " bias" : "");
  }
};

/// Random operands of exactly the sizes that the contract names, so that a sanitizer sees reads beyond them.
class Operands {
 public:
  Operands(const Case& c, std::uint64_t seed) : case_(c), random_(seed) {
    const std::int64_t groups = c.k_padded / c.group;
    const std::int64_t padded_n = (c.n + 15) / 16 * 16;
    a_.resize(static_cast<std::size_t>(c.m * c.k_padded));
    for (std::int8_t& a : a_) a = static_cast<std::int8_t>(random_.integer(-127, 127));
    a_scale_ = random_.uniforms(c.m * c.k_padded / c.a_group(), 0.001F, 0.1F);
    w_.resize(static_cast<std::size_t>(padded_n * c.k_padded / (c.int4 ? 2 : 1)));
    for (std::uint8_t& w : w_)
      w = static_cast<std::uint8_t>(c.int4 ? random_.integer(0, 255) : random_.integer(-127, 127));
    for (std::int64_t i = 0; i < padded_n * groups; ++i) {
      w_scale_.push_back(reference::double_to_half(random_.uniform(-0.02F, 0.02F)));
      zero_.push_back(static_cast<std::uint8_t>(random_.integer(0, 15)));
      offset_.push_back(reference::double_to_half(random_.uniform(-0.2F, 0.2F)));
    }
    bias_ = random_.normals(c.n);
    sum_up();
  }

  std::vector<std::int8_t>& a() { return a_; }
  std::vector<std::uint8_t>& w() { return w_; }
  std::vector<float>& a_scale() { return a_scale_; }
  std::vector<std::uint16_t>& w_scale() { return w_scale_; }

  /// Recomputes the sums of groups of activations, plain and weighted.
  void sum_up() {
    a_sum_.clear();
    const auto a_group = static_cast<std::size_t>(case_.a_group());
    for (std::size_t first = 0; first < a_.size(); first += a_group) {
      a_sum_.push_back(std::accumulate(a_.begin() + static_cast<std::ptrdiff_t>(first),
                                       a_.begin() + static_cast<std::ptrdiff_t>(first + a_group), std::int32_t{0}));
    }
    a_weighted_.assign(a_.size() / static_cast<std::size_t>(case_.group), 0.0F);
    const std::size_t parts = a_sum_.size() / a_weighted_.size();
    for (std::size_t s = 0; s < a_sum_.size(); ++s) {
      float& total = a_weighted_[s / parts];
      total = std::fma(a_scale_[s], static_cast<float>(a_sum_[s]), total);
    }
  }

  MatmulQArgs args(float* y, std::int64_t y_stride) const {
    MatmulQArgs p{};
    p.a = a_.data();
    p.a_scale = a_scale_.data();
    p.a_sum = a_sum_.data();
    p.a_weighted = case_.int4 ? a_weighted_.data() : nullptr;
    p.w = w_.data();
    p.w_scale = w_scale_.data();
    p.w_zero = case_.int4 && case_.zero == Zero::integer ? zero_.data() : nullptr;
    p.w_offset = case_.int4 && case_.zero == Zero::offset ? offset_.data() : nullptr;
    p.bias = case_.bias ? bias_.data() : nullptr;
    p.y = y;
    p.m = case_.m;
    p.n = case_.n;
    p.k_padded = case_.k_padded;
    p.group = case_.group;
    p.a_group = case_.a_group();
    p.y_stride = y_stride;
    return p;
  }

 private:
  Case case_;
  Random random_;
  std::vector<std::int8_t> a_;
  std::vector<float> a_scale_, a_weighted_, bias_;
  std::vector<std::int32_t> a_sum_;
  std::vector<std::uint8_t> w_, zero_;
  std::vector<std::uint16_t> w_scale_, offset_;
};

std::int64_t tiles_of(const Case& c) { return (c.n + 15) / 16; }

void multiply(const KernelTable& table, const Case& c, const Operands& operands, GuardedOutput& y,
              std::int64_t y_stride, const std::vector<Range>& ranges) {
  y.clear();
  const MatmulQArgs args = operands.args(y.data(), y_stride);
  for (const Range range : ranges) (c.int4 ? table.matmul_w4 : table.matmul_w8)(args, range);
}

// A term passes the chain of its weight group (one fused multiply-add per activation group, at most 4; the integer
// sum's own rounding where it is long; for the offset zero * scale and the weighted sum) and then the chain of the
// groups.
void expect_close(const Case& c, const MatmulQArgs& args, const GuardedOutput& y) {
  const auto chain = static_cast<double>((c.int4 ? 2 : 1) * (c.k_padded / c.group) + c.group / c.a_group() + 5);
  for (std::int64_t m = 0; m < c.m; ++m) {
    for (std::int64_t n = 0; n < c.n; ++n) {
      const reference::Sum expected = (c.int4 ? reference::matmul_w4 : reference::matmul_w8)(args, m, n);
      ASSERT_NEAR(y.at(m, n), expected.value, 1.001 * chain * reference::kRound * expected.magnitude)
          << c.name() << " at " << m << ", " << n;
    }
  }
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  int turn = 0;
  const auto add = [&](bool int4, std::int64_t k_padded, std::int64_t group, Zero zero) {
    for (const std::int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 17, 33, 64, 67}) {
      for (const std::int64_t n : {1, 15, 16, 17, 50, 64, 65, 80, 125, 141}) {
        if (m * n > 33 * 80 && turn % 3 != 0) {
          ++turn;
          continue;
        }
        cases.push_back({int4, m, n, k_padded, group, zero, turn++ % 2 == 0});
      }
    }
  };
  for (const std::int64_t group : {32, 64, 128}) {
    for (const std::int64_t groups : {1, 3}) {
      for (const Zero zero : {Zero::neutral, Zero::integer, Zero::offset}) add(true, group * groups, group, zero);
      add(false, group * groups, group, Zero::neutral);
    }
  }
  // More columns than are unpacked at once, in panels of unequal size.
  for (const auto& [group, groups] : {std::pair{32, 83}, std::pair{64, 43}, std::pair{128, 21}}) {
    for (const std::int64_t m : {1, 11}) {
      for (const Zero zero : {Zero::integer, Zero::offset}) {
        cases.push_back({true, m, 67, group * groups, group, zero, turn++ % 2 == 0});
      }
      cases.push_back({false, m, 67, group * groups, group, Zero::neutral, turn++ % 2 == 0});
    }
  }
  for (const std::int64_t whole : {128, 256, 640}) add(false, whole, whole, Zero::neutral);
  return cases;
}

class MatmulQ : public KernelTest {};

TEST_P(MatmulQ, EqualsTheScalarTableBitForBit) {
  std::uint64_t seed = 0;
  for (const Case& c : all_cases()) {
    const Operands operands(c, ++seed);
    const std::int64_t stride = c.n + static_cast<std::int64_t>(seed % 3) * 5;
    GuardedOutput actual(c.m, c.n, stride);
    GuardedOutput expected(c.m, c.n, stride);
    multiply(table(), c, operands, actual, stride, {{0, tiles_of(c)}});
    multiply(scalar(), c, operands, expected, stride, {{0, tiles_of(c)}});
    ASSERT_TRUE(same_bits(actual.all(), expected.all())) << c.name();
    ASSERT_TRUE(actual.written_exactly()) << c.name();
  }
}

TEST_P(MatmulQ, StaysWithinTheRoundingErrorOfTheReference) {
  std::uint64_t seed = 1000;
  for (const Case& c : all_cases()) {
    if (++seed % 5 != 0) continue;
    const Operands operands(c, seed);
    GuardedOutput y(c.m, c.n, c.n);
    multiply(table(), c, operands, y, c.n, {{0, tiles_of(c)}});
    expect_close(c, operands.args(y.data(), c.n), y);
    if (HasFatalFailure()) return;
  }
}

TEST_P(MatmulQ, GivesTheSameBitsUnderEverySplitOfTheTiles) {
  for (const std::int64_t m : {1, 2, 5, 13, 33}) {
    for (const bool int4 : {true, false}) {
      const Case c{int4, m, 16 * 11 + 3, 256, 64, Zero::integer, true};
      const Operands operands(c, 7);
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

TEST_P(MatmulQ, GivesARowTheSameBitsWhateverRowsStandBesideIt) {
  for (const bool int4 : {true, false}) {
    const Case all{int4, 19, 70, 192, 64, int4 ? Zero::offset : Zero::neutral, true};
    const Operands operands(all, 8);
    GuardedOutput together(all.m, all.n, all.n);
    multiply(table(), all, operands, together, all.n, {{0, tiles_of(all)}});
    GuardedOutput alone(1, all.n, all.n);
    for (std::int64_t m = 0; m < all.m; ++m) {
      MatmulQArgs args = operands.args(alone.data(), all.n);
      args.m = 1;
      args.a += m * all.k_padded;
      args.a_scale += m * (all.k_padded / all.a_group());
      args.a_sum += m * (all.k_padded / all.a_group());
      if (int4) args.a_weighted += m * (all.k_padded / all.group);
      (int4 ? table().matmul_w4 : table().matmul_w8)(args, {0, tiles_of(all)});
      for (std::int64_t n = 0; n < all.n; ++n) {
        ASSERT_EQ(std::bit_cast<std::uint32_t>(alone.at(0, n)), std::bit_cast<std::uint32_t>(together.at(m, n)));
      }
    }
  }
}

// Multiplications that saturate pairs of products (vpmaddubsw) or overflow 16 bits show at the largest magnitudes.
TEST_P(MatmulQ, IsExactForTheLargestMagnitudes) {
  for (const bool int4 : {true, false}) {
    for (const std::int64_t group : {32, 128, 8192}) {
      if (int4 && group > 128) continue;
      for (const std::int64_t m : {1, 2, 9}) {
        for (const int pattern : {0, 1, 2, 3}) {
          const Case c{int4, m, 33, group * (group == 8192 ? 1 : 2), group, Zero::neutral, false};
          Operands operands(c, 9);
          for (std::size_t i = 0; i < operands.a().size(); ++i) {
            const bool minus = pattern == 1 || (pattern >= 2 && i / (pattern - 1) % 2 == 0);
            operands.a()[i] = minus ? (int4 ? std::int8_t{-128} : std::int8_t{-127}) : std::int8_t{127};
          }
          for (std::size_t i = 0; i < operands.w().size(); ++i) {
            operands.w()[i] = int4 ? 0xff : static_cast<std::uint8_t>(i / 4 % 2 == 0 ? 127 : -127);
          }
          std::fill(operands.a_scale().begin(), operands.a_scale().end(), 1.0F);
          std::fill(operands.w_scale().begin(), operands.w_scale().end(), std::uint16_t{0x3c00});  // 1
          operands.sum_up();
          GuardedOutput y(c.m, c.n, c.n);
          multiply(table(), c, operands, y, c.n, {{0, tiles_of(c)}});
          const MatmulQArgs args = operands.args(y.data(), c.n);
          for (std::int64_t row = 0; row < c.m; ++row) {
            for (std::int64_t n = 0; n < c.n; ++n) {
              const reference::Sum exact = (int4 ? reference::matmul_w4 : reference::matmul_w8)(args, row, n);
              ASSERT_EQ(y.at(row, n), static_cast<float>(exact.value)) << c.name() << " pattern " << pattern;
            }
          }
        }
      }
    }
  }
}

TEST_P(MatmulQ, RowsOfZerosGiveTheBias) {
  for (const bool int4 : {true, false}) {
    const Case c{int4, 7, 35, 128, 32, Zero::integer, true};
    Operands operands(c, 10);
    std::fill(operands.a().begin(), operands.a().end(), std::int8_t{0});
    std::fill(operands.a_scale().begin(), operands.a_scale().end(), 0.0F);
    operands.sum_up();
    GuardedOutput y(c.m, c.n, c.n);
    multiply(table(), c, operands, y, c.n, {{0, tiles_of(c)}});
    const MatmulQArgs args = operands.args(y.data(), c.n);
    for (std::int64_t m = 0; m < c.m; ++m) {
      for (std::int64_t n = 0; n < c.n; ++n) ASSERT_EQ(y.at(m, n), args.bias[n]);
    }
  }
}

// Scales down to subnormal halves and subnormal activations' scales: products that underflow must do so alike.
TEST_P(MatmulQ, EqualsTheScalarTableForSubnormalScales) {
  for (const bool int4 : {true, false}) {
    for (const std::int64_t m : {1, 6}) {
      const Case c{int4, m, 32, 128, 64, Zero::neutral, false};
      Operands operands(c, 11);
      for (std::size_t i = 0; i < operands.w_scale().size(); ++i) {
        operands.w_scale()[i] = static_cast<std::uint16_t>(i % 40 + (i % 2 == 0 ? 0x8000 : 0));
      }
      for (std::size_t i = 0; i < operands.a_scale().size(); ++i)
        operands.a_scale()[i] = i % 2 == 0 ? 0x1p-120F : 0x1p-140F;
      GuardedOutput actual(c.m, c.n, c.n);
      GuardedOutput expected(c.m, c.n, c.n);
      multiply(table(), c, operands, actual, c.n, {{0, tiles_of(c)}});
      multiply(scalar(), c, operands, expected, c.n, {{0, tiles_of(c)}});
      ASSERT_TRUE(same_bits(actual.all(), expected.all())) << c.name();
    }
  }
}

VILA_FOR_EVERY_TABLE(MatmulQ);

}  // namespace
}  // namespace vila::kernels
