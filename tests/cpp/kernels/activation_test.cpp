// SiLU and both forms of GELU over all sizes of numbers: error against double precision, equal bits on every table.
#include <cmath>

#include "kernels/kernel_test.h"
#include "reference/reference.h"
#include "support/random.h"

namespace vila::kernels {
namespace {

using reference::kRound;

// Every step-th finite float, in both signs.
std::vector<float> all_sizes(std::uint32_t step) {
  std::vector<float> values;
  for (std::uint32_t bits = 0; bits < 0x7f800000; bits += step) {
    values.push_back(std::bit_cast<float>(bits));
    values.push_back(std::bit_cast<float>(bits | 0x80000000U));
  }
  return values;
}

std::vector<float> apply(const KernelTable& table, Unary op, const std::vector<float>& x) {
  std::vector<float> y(x.size());
  table.unary(op, x.data(), y.data(), static_cast<std::int64_t>(x.size()));
  return y;
}

class Activation : public KernelTest {};

// exp within 2 roundings, then an addition, a division and a product. Where e^-x leaves f32 the result is 0 instead of
// at most 89 e^-88.7 < 3e-37, times up.
TEST_P(Activation, SiluMulMatchesTheReference) {
  const std::vector<float> gate = all_sizes(30011);
  testing_support::Random random(1);
  const std::vector<float> up = random.uniforms(static_cast<std::int64_t>(gate.size()), -2.0F, 2.0F);
  std::vector<float> y(gate.size());
  table().silu_mul(gate.data(), up.data(), y.data(), static_cast<std::int64_t>(gate.size()));
  for (std::size_t i = 0; i < gate.size(); ++i) {
    const double exact = reference::silu(gate[i]) * up[i];
    if (std::abs(exact) >= 3.4e38) continue;  // beyond f32
    const double bound = 5.05 * kRound * std::abs(exact) + 3e-37 * std::abs(up[i]) + 0x1p-148;
    ASSERT_NEAR(y[i], exact, bound) << std::hexfloat << gate[i] << " * " << up[i];
  }
}

// x/2 (1 + erf): the documented error of erf and the roundings of its argument and of the result.
TEST_P(Activation, GeluErfMatchesTheReference) {
  const std::vector<float> x = all_sizes(30011);
  const std::vector<float> y = apply(table(), Unary::gelu_erf, x);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double exact = reference::gelu_erf(x[i]);
    const double bound = std::abs(x[i] / 2.0) * (1.2e-7 + 2 * kRound) + kRound * std::abs(exact) + 0x1p-149;
    ASSERT_NEAR(y[i], exact, std::abs(x[i]) > 6 && x[i] < 0 ? 1e-6 * std::abs(x[i]) : bound) << std::hexfloat << x[i];
  }
}

// x/2 (1 + tanh z): tanh within 3 ulp (6 roundings), five roundings of z where z (1 - tanh^2 z) is at most 0.45.
TEST_P(Activation, GeluTanhMatchesTheReference) {
  const std::vector<float> x = all_sizes(30011);
  const std::vector<float> y = apply(table(), Unary::gelu_tanh, x);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double exact = reference::gelu_tanh(x[i]);
    const double bound = std::abs(x[i] / 2.0) * (6 + 5 * 0.45) * kRound + kRound * std::abs(exact) + 0x1p-149;
    ASSERT_NEAR(y[i], exact, bound) << std::hexfloat << x[i];
  }
}

TEST_P(Activation, EqualsTheScalarTableBitForBit) {
  const std::vector<float> x = all_sizes(9973);
  for (const Unary op : {Unary::gelu_erf, Unary::gelu_tanh}) {
    ASSERT_TRUE(same_bits(apply(table(), op, x), apply(scalar(), op, x))) << static_cast<int>(op);
  }
  const std::vector<float> up(x.rbegin(), x.rend());
  std::vector<float> actual(x.size());
  std::vector<float> expected(x.size());
  table().silu_mul(x.data(), up.data(), actual.data(), static_cast<std::int64_t>(x.size()));
  scalar().silu_mul(x.data(), up.data(), expected.data(), static_cast<std::int64_t>(x.size()));
  EXPECT_TRUE(same_bits(actual, expected));
}

// A tail of fewer than 16 values is computed as the rest, nothing beyond it is touched, and in place gives the same.
TEST_P(Activation, TailsGiveTheSameBits) {
  testing_support::Random random(2);
  const std::vector<float> x = random.normals(40);
  const std::vector<float> up = random.normals(40);
  std::vector<float> whole(40);
  table().silu_mul(x.data(), up.data(), whole.data(), 40);
  const std::vector<float> gelu = apply(table(), Unary::gelu_tanh, x);
  for (std::int64_t n = 0; n <= 40; ++n) {
    GuardedOutput y(1, n, n);
    table().silu_mul(x.data(), up.data(), y.data(), n);
    if (n > 0) {
      ASSERT_TRUE(y.written_exactly()) << n;
    }
    for (std::int64_t i = 0; i < n; ++i) ASSERT_EQ(y.at(0, i), whole[static_cast<std::size_t>(i)]) << n;
    std::vector<float> in_place = x;
    table().unary(Unary::gelu_tanh, in_place.data(), in_place.data(), n);
    for (std::int64_t i = 0; i < 40; ++i) {
      ASSERT_EQ(in_place[static_cast<std::size_t>(i)],
                i < n ? gelu[static_cast<std::size_t>(i)] : x[static_cast<std::size_t>(i)]);
    }
  }
}

VILA_FOR_EVERY_TABLE(Activation);

}  // namespace
}  // namespace vila::kernels
