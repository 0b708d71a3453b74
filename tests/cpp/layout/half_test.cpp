// base/half.h: every half and the floats around it against the double reference; bfloat16.
#include "base/half.h"

#include <bit>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "reference/reference.h"

namespace vila {
namespace {

TEST(Half, ReadsEveryHalf) {
  for (int i = 0; i < 65536; ++i) {
    const auto bits = static_cast<std::uint16_t>(i);
    const double exact = reference::half_to_double(bits);
    const float value = f16_to_f32(bits);
    if (std::isnan(exact)) {
      ASSERT_TRUE(std::isnan(value)) << i;
    } else {
      ASSERT_EQ(std::bit_cast<std::uint32_t>(value), std::bit_cast<std::uint32_t>(static_cast<float>(exact))) << i;
    }
  }
}

TEST(Half, RoundsToNearestEven) {
  for (int i = 0; i < 0x7c00; ++i) {
    const double half = reference::half_to_double(static_cast<std::uint16_t>(i));
    const double next = i == 0x7bff ? 65536.0 : reference::half_to_double(static_cast<std::uint16_t>(i + 1));
    const auto middle = static_cast<float>((half + next) / 2);
    for (const float value :
         {static_cast<float>(half), middle, std::nextafter(middle, 0.0F), std::nextafter(middle, 1e9F)}) {
      ASSERT_EQ(f32_to_f16(value), reference::double_to_half(value)) << std::hexfloat << value;
      ASSERT_EQ(f32_to_f16(-value), reference::double_to_half(-value)) << std::hexfloat << value;
    }
  }
  EXPECT_EQ(f32_to_f16(std::numeric_limits<float>::infinity()), 0x7c00);
  EXPECT_EQ(f32_to_f16(-std::numeric_limits<float>::max()), 0xfc00);
  EXPECT_EQ(f32_to_f16(0x1p-149F), 0);
  EXPECT_EQ(f32_to_f16(-0.0F), 0x8000);
  EXPECT_GT(f32_to_f16(std::numeric_limits<float>::quiet_NaN()) & 0x7fff, 0x7c00);
}

TEST(Half, Bfloat16IsTheUpperHalfOfAFloat) {
  EXPECT_EQ(bf16_to_f32(0x3f80), 1.0F);
  EXPECT_EQ(bf16_to_f32(0xc049), -3.140625F);
  EXPECT_EQ(bf16_to_f32(0x0001), 0x1p-133F);
}

}  // namespace
}  // namespace vila
