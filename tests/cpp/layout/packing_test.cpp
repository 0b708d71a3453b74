// Packed weights: the place of every byte, round trips, the error of rounding, padding, and refusals.
#include "layout/packing.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include <gtest/gtest.h>

#include "reference/reference.h"
#include "support/expect_error.h"
#include "support/random.h"
#include "vila/error.h"

namespace vila {
namespace {

using reference::double_to_half;
using reference::half_to_double;
using testing_support::expect_error;
using testing_support::Random;

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

// [Np/16, groups, 16]
std::size_t scale_at(const PackedMatrix& p, std::int64_t row, std::int64_t group) {
  return index((row / 16 * p.format.n_groups(p.k) + group) * 16 + row % 16);
}

TEST(Packing, PlacesNibblesAsDocumented) {
  // 17 rows x 64 columns, two groups: the nibble of row n, column k is (7 n + k) mod 16.
  const WeightFormat format = WeightFormat::parse("w4p16x8g32z");
  std::vector<std::uint8_t> q;
  std::vector<std::uint16_t> scales;
  std::vector<std::uint8_t> zeros;
  for (int n = 0; n < 17; ++n) {
    for (int k = 0; k < 64; ++k) q.push_back(static_cast<std::uint8_t>((7 * n + k) % 16));
    for (int g = 0; g < 2; ++g) {
      scales.push_back(static_cast<std::uint16_t>(0x3000 + 100 * n + g));
      zeros.push_back(static_cast<std::uint8_t>((n + 5 * g) % 16));
    }
  }
  const PackedMatrix packed = pack_int4(q, scales, zeros, {}, 17, 64, format);
  ASSERT_EQ(packed.values.size(), 2U * 64 / 8 * 64);
  ASSERT_EQ(packed.scales.size(), 2U * 2 * 16);
  for (int tile = 0; tile < 2; ++tile) {
    for (int block = 0; block < 8; ++block) {
      for (int r = 0; r < 16 && 16 * tile + r < 17; ++r) {
        for (int c = 0; c < 4; ++c) {
          const int n = 16 * tile + r;
          const int low = (7 * n + 8 * block + c) % 16;
          const int high = (7 * n + 8 * block + 4 + c) % 16;
          ASSERT_EQ(packed.values[index(tile * 512 + block * 64 + 4 * r + c)], low + 16 * high) << n << " " << block;
        }
      }
    }
  }
  for (int n = 0; n < 17; ++n) {
    for (int g = 0; g < 2; ++g) {
      EXPECT_EQ(packed.scales[index((n / 16 * 2 + g) * 16 + n % 16)], 0x3000 + 100 * n + g);
      EXPECT_EQ(packed.zeros[index((n / 16 * 2 + g) * 16 + n % 16)], (n + 5 * g) % 16);
    }
  }
}

TEST(Packing, PlacesBytesAsDocumented) {
  // Whole numbers with 127 in every row: the scale is exactly 1 and a byte is the value.
  const std::int64_t n_rows = 18;
  const std::int64_t columns = 130;  // padded to 256
  std::vector<float> w;
  for (std::int64_t n = 0; n < n_rows; ++n) {
    for (std::int64_t k = 0; k < columns; ++k)
      w.push_back(k == 0 ? 127.0F : static_cast<float>((31 * n + 7 * k) % 255 - 127));
  }
  const PackedMatrix packed = pack_matrix(w, n_rows, columns, WeightFormat::parse("w8p16x4g0"));
  ASSERT_EQ(packed.values.size(), 2U * 256 * 16);
  for (std::int64_t n = 0; n < n_rows; ++n) {
    EXPECT_EQ(packed.scales[index(n)], 0x3c00);
    for (std::int64_t k = 0; k < 256; ++k) {
      const auto byte =
          static_cast<std::int8_t>(packed.values[index(n / 16 * 256 * 16 + k / 4 * 64 + 4 * (n % 16) + k % 4)]);
      ASSERT_EQ(byte, k < columns ? static_cast<int>(w[index(n * columns + k)]) : 0) << n << ", " << k;
    }
  }
}

TEST(Packing, PlacesFloatsAsDocumented) {
  for (const bool half : {false, true}) {
    std::vector<float> w;
    for (int i = 0; i < 19 * 5; ++i) w.push_back(static_cast<float>(i) - 40.5F);
    const PackedMatrix packed = pack_matrix(w, 19, 5, WeightFormat::parse(half ? "f16p16" : "f32p16"));
    ASSERT_EQ(packed.values.size(), 2U * 5 * 16 * (half ? 2 : 4));
    EXPECT_TRUE(packed.scales.empty());
    for (int n = 0; n < 32; ++n) {
      for (int k = 0; k < 5; ++k) {
        const int at = (n / 16 * 5 + k) * 16 + n % 16;
        const double expected = n < 19 ? w[index(n * 5 + k)] : 0.0;
        if (half) {
          std::uint16_t bits = 0;
          std::memcpy(&bits, packed.values.data() + 2 * at, 2);
          EXPECT_EQ(half_to_double(bits), expected);
        } else {
          float value = -1;
          std::memcpy(&value, packed.values.data() + 4 * at, 4);
          EXPECT_EQ(value, expected);
        }
      }
    }
  }
}

TEST(Packing, FloatsComeBackExactly) {
  Random random(1);
  for (const std::int64_t n : {1, 16, 33}) {
    for (const std::int64_t k : {1, 7, 64}) {
      std::vector<float> w = random.normals(n * k);
      EXPECT_EQ(unpack_matrix(pack_matrix(w, n, k, WeightFormat::parse("f32p16"))), w);
      for (float& value : w) value = static_cast<float>(half_to_double(double_to_half(value)));
      EXPECT_EQ(unpack_matrix(pack_matrix(w, n, k, WeightFormat::parse("f16p16"))), w);
    }
  }
}

TEST(Packing, Int4ComesBackAsTheFormulaSays) {
  Random random(2);
  for (const char* name : {"w4p16x8g32", "w4p16x8g64z", "w4p16x8g128o"}) {
    const WeightFormat format = WeightFormat::parse(name);
    const std::int64_t n = 21;
    const std::int64_t k = 256;
    const std::int64_t groups = format.n_groups(k);
    std::vector<std::uint8_t> q(index(n * k));
    for (std::uint8_t& value : q) value = static_cast<std::uint8_t>(random.integer(0, 15));
    std::vector<std::uint16_t> scales;
    std::vector<std::uint8_t> zeros;
    std::vector<std::uint16_t> offsets;
    for (std::int64_t i = 0; i < n * groups; ++i) {
      scales.push_back(double_to_half(random.uniform(-0.1F, 0.1F)));
      if (format.zero == ZeroKind::u8) zeros.push_back(static_cast<std::uint8_t>(random.integer(0, 15)));
      if (format.zero == ZeroKind::f16_offset) offsets.push_back(double_to_half(random.uniform(-1.0F, 1.0F)));
    }
    const std::vector<float> w = unpack_matrix(pack_int4(q, scales, zeros, offsets, n, k, format));
    for (std::int64_t row = 0; row < n; ++row) {
      for (std::int64_t column = 0; column < k; ++column) {
        const std::size_t g = index(row * groups + column / format.group);
        const double scale = half_to_double(scales[g]);
        const double value = q[index(row * k + column)];
        double expected = (value - 8) * scale;
        if (format.zero == ZeroKind::u8) expected = (value - zeros[g]) * scale;
        if (format.zero == ZeroKind::f16_offset) expected = value * scale + half_to_double(offsets[g]);
        ASSERT_NEAR(w[index(row * k + column)], expected, std::abs(expected) * 0x1p-23 + 0x1p-22) << name;
      }
    }
  }
}

// The error of a value in steps of its group. Rounding gives half a step; the scale's own rounding to f16 (2^-11, or
// 2^-25 absolute where the scale is subnormal) moves the ends of the range a little; without zero points the end
// opposite to the extreme may be one step short.
TEST(Packing, RoundingErrorIsHalfAStep) {
  Random random(3);
  for (const char* name :
       {"w8p16x4g0", "w8p16x4g32", "w8p16x4g128", "w4p16x8g32", "w4p16x8g128", "w4p16x8g32z", "w4p16x8g64z"}) {
    const WeightFormat format = WeightFormat::parse(name);
    const bool one_sided = format.kind == WeightKind::w4p16x8 && format.zero == ZeroKind::none;
    for (const std::int64_t k : {1, 31, 128, 300}) {
      for (const float shift : {0.0F, 0.7F, -3.0F}) {
        const std::int64_t n = 19;
        std::vector<float> w = random.normals(n * k);
        for (float& value : w) value = 0.02F * (value + shift);
        const PackedMatrix packed = pack_matrix(w, n, k, format);
        const std::vector<float> back = unpack_matrix(packed);
        for (std::int64_t row = 0; row < n; ++row) {
          for (std::int64_t column = 0; column < k; ++column) {
            const float value = w[index(row * k + column)];
            const double step = half_to_double(packed.scales[scale_at(packed, row, column / format.group_columns(k))]);
            if (step == 0) {  // below half of the smallest f16
              ASSERT_LE(std::abs(value), 127 * 0x1p-25);
              continue;
            }
            const double steps = value / step;
            const double scale_error = std::max(0x1p-11, 0x1p-25 / std::abs(step));
            double allowed = 0.5 + 15 * scale_error + 127 * 0x1p-23;
            if (format.kind == WeightKind::w8p16x4) allowed = 0.5 + 128 * scale_error;
            if (one_sided && steps > 7.5) allowed = steps - 7 + 0.01;
            ASSERT_LE(std::abs((back[index(row * k + column)] - value) / step), allowed)
                << name << " k " << k << " row " << row << " column " << column << " value " << value;
          }
        }
      }
    }
  }
}

TEST(Packing, ScalesFollowTheDocumentedRule) {
  std::vector<float> w(32, 0.0F);
  w[3] = -4.0F;
  w[9] = 2.0F;
  const auto scale = [&](const char* name) {
    const PackedMatrix packed = pack_matrix(w, 1, 32, WeightFormat::parse(name));
    return half_to_double(packed.scales[0]);
  };
  EXPECT_EQ(scale("w4p16x8g32"), 0.5);  // -4 / -8
  EXPECT_EQ(scale("w8p16x4g32"), half_to_double(double_to_half(4.0F / 127.0F)));
  EXPECT_EQ(scale("w4p16x8g32z"), half_to_double(double_to_half(6.0F / 15.0F)));
  EXPECT_EQ(pack_matrix(w, 1, 32, WeightFormat::parse("w4p16x8g32z")).zeros[0], 10);
  w[9] = 8.0F;
  EXPECT_EQ(scale("w4p16x8g32"), -1.0);  // 8 / -8
}

TEST(Packing, PaddingAndZerosMeanZero) {
  for (const char* name : {"w8p16x4g32", "w4p16x8g32", "w4p16x8g32z"}) {
    const WeightFormat format = WeightFormat::parse(name);
    Random random(4);
    std::vector<float> w = random.uniforms(17 * 40, 0.5F, 1.0F);
    for (int k = 0; k < 32; ++k) w[index(3 * 40 + k)] = 0.0F;
    w[index(5 * 40 + 2)] = 0.0F;
    const PackedMatrix packed = pack_matrix(w, 17, 40, format);
    const std::vector<float> back = unpack_matrix(packed);
    for (int k = 0; k < 32; ++k) EXPECT_EQ(back[index(3 * 40 + k)], 0.0F) << name;
    EXPECT_EQ(back[index(5 * 40 + 2)], 0.0F) << name;
    for (std::int64_t row = 0; row < 32; ++row) {
      for (std::int64_t column = 0; column < 64; ++column) {
        if (row < 17 && column < 40) continue;
        const std::size_t at = scale_at(packed, row, column / 32);
        int q = 0;
        if (format.kind == WeightKind::w8p16x4) {
          q = reference::packed_int8(packed.values.data(), row, column, 64);
        } else {
          q = reference::packed_int4(packed.values.data(), row, column, 64) -
              (packed.zeros.empty() ? 8 : packed.zeros[at]);
        }
        EXPECT_EQ(q * half_to_double(packed.scales[at]), 0.0) << name << " " << row << ", " << column;
        if (row >= 17) {
          EXPECT_EQ(packed.scales[at], 0) << name;
        }
      }
    }
  }
}

TEST(Packing, RefusesWhatCannotBeRight) {
  const std::vector<float> w(32, 1.0F);
  const WeightFormat w4 = WeightFormat::parse("w4p16x8g32");
  expect_error<InvalidArgument>([&] { pack_matrix(w, 2, 32, w4); }, {"[pack]", "w", "64", "32"});
  expect_error<InvalidArgument>([&] { pack_matrix(w, 0, 32, w4); }, {"[pack]", "0 x 32"});
  expect_error<InvalidArgument>([&] { pack_matrix(w, 1, 32, WeightFormat::parse("w4p16x8g32o")); },
                                {"[pack]", "w4p16x8g32o"});
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    std::vector<float> wrong = w;
    wrong[7] = bad;
    expect_error<InvalidArgument>([&] { pack_matrix(wrong, 1, 32, w4); }, {"[pack]", "finite"});
  }
  const std::vector<float> huge(32, 1e30F);
  expect_error<InvalidArgument>([&] { pack_matrix(huge, 1, 32, w4); }, {"[pack]", "f16"});
}

TEST(Packing, RefusesInt4ThatDoesNotFitItsFormat) {
  const WeightFormat plain = WeightFormat::parse("w4p16x8g32");
  const WeightFormat zero = WeightFormat::parse("w4p16x8g32z");
  const WeightFormat offset = WeightFormat::parse("w4p16x8g32o");
  const std::vector<std::uint8_t> q(32, 3);
  const std::vector<std::uint16_t> scales(1, 0x3c00);
  const std::vector<std::uint8_t> zeros(1, 8);
  const std::vector<std::uint16_t> offsets(1, 0x3c00);
  pack_int4(q, scales, {}, {}, 1, 32, plain);
  pack_int4(q, scales, zeros, {}, 1, 32, zero);
  pack_int4(q, scales, {}, offsets, 1, 32, offset);
  const auto refuses = [&](const std::vector<std::uint8_t>& values, const std::vector<std::uint16_t>& s,
                           const std::vector<std::uint8_t>& z, const std::vector<std::uint16_t>& o, std::int64_t k,
                           const WeightFormat& format, const char* part) {
    expect_error<InvalidArgument>([&] { pack_int4(values, s, z, o, 1, k, format); }, {"[pack]", part});
  };
  refuses(q, scales, zeros, {}, 32, plain, "zeros");
  refuses(q, scales, {}, offsets, 32, plain, "offsets");
  refuses(q, scales, {}, {}, 32, zero, "zeros");
  refuses(q, scales, zeros, offsets, 32, zero, "offsets");
  refuses(q, scales, {}, {}, 32, offset, "offsets");
  refuses(q, {}, {}, {}, 32, plain, "scales");
  refuses(q, scales, {}, {}, 31, plain, "multiple of the group 32");
  refuses(q, scales, {}, {}, 64, plain, "q");
  refuses(q, scales, {16}, {}, 32, zero, "0..15");
  std::vector<std::uint8_t> big = q;
  big[5] = 16;
  refuses(big, scales, {}, {}, 32, plain, "0..15");
  refuses(q, scales, {}, {}, 32, WeightFormat::parse("w8p16x4g32"), "w4p16x8");
}

}  // namespace
}  // namespace vila
