// exp, tanh and erf of simd/math.h on the scalar vector, against double precision over all sizes of numbers. That the
// other vectors give the same bits is shown through the kernels that use them (activation_test, attention_test).
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include <gtest/gtest.h>

#define VILA_ISA_NS math_test_lanes
// The order matters.
// clang-format off
#include "kernels/simd/scalar.h"
#include "kernels/simd/math.h"
// clang-format on

namespace vila::kernels::math_test_lanes {
namespace {

// Units in the last place of the float nearest to `exact`; subnormal results count in the smallest one.
double ulps(float actual, double exact) {
  const int exponent = exact == 0 ? -149 : std::max(std::ilogb(exact) - 23, -149);
  return std::abs(actual - exact) / std::ldexp(1.0, exponent);
}

// Calls check(x, f(x)) for every step-th float between two bit patterns.
template <class F, class Check>
void sweep(F f, std::uint32_t first, std::uint32_t last, std::uint32_t step, Check check) {
  float x[16];
  float y[16];
  for (std::uint64_t bits = first; bits <= last; bits += 16ULL * step) {
    for (std::uint32_t i = 0; i < 16; ++i) {
      x[i] = std::bit_cast<float>(static_cast<std::uint32_t>(std::min<std::uint64_t>(bits + i * step, last)));
    }
    store(y, f(load(x)));
    for (int i = 0; i < 16; ++i) {
      check(x[i], y[i]);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

template <class F>
float at(F f, float x) {
  float y[16];
  store(y, f(splat(x)));
  return y[0];
}

constexpr auto kExp = [](F32x16 x) { return exp(x); };
constexpr auto kTanh = [](F32x16 x) { return tanh(x); };
constexpr auto kErf = [](F32x16 x) { return erf(x); };

constexpr std::uint32_t kLargest = 0x7f7fffff;  // FLT_MAX
constexpr std::uint32_t kSign = 0x80000000;

TEST(Math, ExpIsWithinOneUlpOfNormalResults) {
  const auto check = [](float x, float y) {
    const double exact = std::exp(static_cast<double>(x));
    if (x < -87.33654F) {
      ASSERT_EQ(y, 0.0F) << x;
    } else if (exact > std::numeric_limits<float>::max() * (1 + 0x1p-25)) {
      ASSERT_EQ(y, std::numeric_limits<float>::infinity()) << x;
    } else {
      ASSERT_LE(ulps(y, exact), 1.0) << std::hexfloat << x;
    }
  };
  sweep(kExp, 0, kLargest, 1009, check);
  sweep(kExp, kSign, kSign | kLargest, 1009, check);
  sweep(kExp, std::bit_cast<std::uint32_t>(88.0F), std::bit_cast<std::uint32_t>(89.0F), 1, check);
  sweep(kExp, std::bit_cast<std::uint32_t>(-87.0F), std::bit_cast<std::uint32_t>(-88.0F), 1, check);
}

TEST(Math, ExpOfTheEdges) {
  EXPECT_EQ(at(kExp, 0.0F), 1.0F);
  EXPECT_EQ(at(kExp, -0.0F), 1.0F);
  EXPECT_EQ(at(kExp, std::numeric_limits<float>::infinity()), std::numeric_limits<float>::infinity());
  EXPECT_EQ(at(kExp, -std::numeric_limits<float>::infinity()), 0.0F);
  EXPECT_TRUE(std::isnan(at(kExp, std::numeric_limits<float>::quiet_NaN())));
}

TEST(Math, TanhIsWithinThreeUlp) {
  const auto check = [](float x, float y) {
    ASSERT_LE(ulps(y, std::tanh(static_cast<double>(x))), 3.0) << std::hexfloat << x;
  };
  sweep(kTanh, 0, kLargest, 1009, check);
  sweep(kTanh, kSign, kSign | kLargest, 1009, check);
  EXPECT_TRUE(std::isnan(at(kTanh, std::numeric_limits<float>::quiet_NaN())));
  EXPECT_EQ(at(kTanh, std::numeric_limits<float>::infinity()), 1.0F);
  EXPECT_EQ(at(kTanh, -std::numeric_limits<float>::infinity()), -1.0F);
}

TEST(Math, ErfIsWithinItsBoundAndOdd) {
  const auto check = [](float x, float y) {
    const double exact = std::erf(static_cast<double>(x));
    ASSERT_NEAR(y, exact, 1.2e-7) << std::hexfloat << x;
    ASSERT_LE(ulps(y, exact), std::abs(x) < 0.5F ? 4.0 : 3.0) << std::hexfloat << x;
    ASSERT_EQ(at(kErf, -x), -y) << x;
  };
  sweep(kErf, 0, kLargest, 4001, check);
  EXPECT_TRUE(std::isnan(at(kErf, std::numeric_limits<float>::quiet_NaN())));
  EXPECT_EQ(at(kErf, std::numeric_limits<float>::infinity()), 1.0F);
  EXPECT_EQ(at(kErf, -std::numeric_limits<float>::infinity()), -1.0F);
}

// The order of sums that every instruction set repeats: with these sizes another tree gives another result.
TEST(Math, SumsLanesInTheFixedTree) {
  float x[16];
  for (int i = 0; i < 16; ++i) x[i] = std::ldexp(1.0F + 0.37F * static_cast<float>(i), i * 5 % 23);
  float eight[8];
  for (int i = 0; i < 8; ++i) eight[i] = x[i] + x[i + 8];
  const float tree = ((eight[0] + eight[4]) + (eight[2] + eight[6])) + ((eight[1] + eight[5]) + (eight[3] + eight[7]));
  EXPECT_EQ(reduce_add(load(x)), tree);
}

}  // namespace
}  // namespace vila::kernels::math_test_lanes
