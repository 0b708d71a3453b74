// Half precision: all 65536 halves to f32, and the roundings of f32 around every half.
#include <cmath>
#include <limits>

#include "kernels/kernel_test.h"
#include "reference/reference.h"
#include "support/random.h"

namespace vila::kernels {
namespace {

class Convert : public KernelTest {};

TEST_P(Convert, ReadsEveryHalf) {
  std::vector<std::uint16_t> halves(65536);
  for (std::size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<std::uint16_t>(i);
  std::vector<float> values(halves.size());
  table().f16_to_f32(halves.data(), values.data(), 65536);
  for (std::size_t i = 0; i < halves.size(); ++i) {
    const double expected = reference::half_to_double(halves[i]);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(values[i])) << i;
    } else {
      const auto exact = static_cast<float>(expected);
      ASSERT_EQ(std::bit_cast<std::uint32_t>(values[i]), std::bit_cast<std::uint32_t>(exact)) << i;
    }
  }
}

// Every half itself, the middle to the next one (a tie), and the floats on both sides of the middle.
TEST_P(Convert, RoundsToTheNearestHalfTiesToEven) {
  std::vector<float> values;
  for (int i = 0; i < 0x7c00; ++i) {
    const double half = reference::half_to_double(static_cast<std::uint16_t>(i));
    const double next = i == 0x7bff ? 65536.0 : reference::half_to_double(static_cast<std::uint16_t>(i + 1));
    const auto middle = static_cast<float>((half + next) / 2);  // exact
    for (const float sign : {1.0F, -1.0F}) {
      values.push_back(sign * static_cast<float>(half));
      values.push_back(sign * middle);
      values.push_back(sign * std::nextafter(middle, 0.0F));
      values.push_back(sign * std::nextafter(middle, 1e9F));
    }
  }
  for (const float value : {65519.996F, 65520.0F, 1e10F, 3.4e38F, std::numeric_limits<float>::infinity(), 0x1p-149F,
                            0x1p-126F, 0x1p-25F, 1e-20F}) {
    values.push_back(value);
    values.push_back(-value);
  }
  testing_support::Random random(3);
  for (int i = 0; i < 100000; ++i)
    values.push_back(std::ldexp(random.uniform(-2.0F, 2.0F), static_cast<int>(random.integer(-30, 17))));
  std::vector<std::uint16_t> halves(values.size());
  table().f32_to_f16(values.data(), halves.data(), static_cast<std::int64_t>(values.size()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    ASSERT_EQ(halves[i], reference::double_to_half(values[i])) << std::hexfloat << values[i];
  }
}

TEST_P(Convert, TouchesExactlyTheValuesThatItWasGiven) {
  for (const std::int64_t n : {0, 1, 15, 16, 17, 33}) {
    const std::vector<float> values(static_cast<std::size_t>(n), 1.0F);
    std::vector<std::uint16_t> halves(static_cast<std::size_t>(n + 20), 0xffff);
    table().f32_to_f16(values.data(), halves.data(), n);
    for (std::int64_t i = 0; i < n + 20; ++i)
      ASSERT_EQ(halves[static_cast<std::size_t>(i)], i < n ? 0x3c00 : 0xffff) << n;
    GuardedOutput back(1, n, n);
    table().f16_to_f32(halves.data(), back.data(), n);
    if (n > 0) {
      ASSERT_TRUE(back.written_exactly()) << n;
    }
    for (std::int64_t i = 0; i < n; ++i) ASSERT_EQ(back.at(0, i), 1.0F);
  }
}

VILA_FOR_EVERY_TABLE(Convert);

}  // namespace
}  // namespace vila::kernels
