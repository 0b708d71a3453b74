// Names and sizes of the weight formats.
#include "layout/weight_format.h"

#include <string>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "vila/error.h"

namespace vila {
namespace {

using testing_support::expect_error;

TEST(WeightFormat, EveryNameComesBack) {
  int count = 0;
  for (const char* name :
       {"f32p16", "f16p16", "w8p16x4g0", "w8p16x4g32", "w8p16x4g64", "w8p16x4g128", "w4p16x8g32", "w4p16x8g64",
        "w4p16x8g128", "w4p16x8g32z", "w4p16x8g64z", "w4p16x8g128z", "w4p16x8g32o", "w4p16x8g64o", "w4p16x8g128o"}) {
    EXPECT_EQ(WeightFormat::parse(name).to_string(), name);
    ++count;
  }
  EXPECT_EQ(count, 15);
}

TEST(WeightFormat, NamesMeanWhatTheySay) {
  const WeightFormat z = WeightFormat::parse("w4p16x8g128z");
  EXPECT_EQ(z.kind, WeightKind::w4p16x8);
  EXPECT_EQ(z.group, 128);
  EXPECT_EQ(z.zero, ZeroKind::u8);
  EXPECT_TRUE(z.is_integer());
  EXPECT_EQ(WeightFormat::parse("w4p16x8g32o").zero, ZeroKind::f16_offset);
  EXPECT_EQ(WeightFormat::parse("w4p16x8g64").zero, ZeroKind::none);
  EXPECT_EQ(WeightFormat::parse("w8p16x4g0").kind, WeightKind::w8p16x4);
  EXPECT_FALSE(WeightFormat::parse("f16p16").is_integer());
  EXPECT_FALSE(z == WeightFormat::parse("w4p16x8g128"));
}

TEST(WeightFormat, RefusesEverythingElseAndQuotesIt) {
  for (const char* name : {"",
                           "f32",
                           "f64p16",
                           "F32P16",
                           "f32p16 ",
                           " f32p16",
                           "w4p16x8",
                           "w4p16x8g",
                           "w4p16x8g0",
                           "w4p16x8g16",
                           "w4p16x8g256",
                           "w4p16x8g128zz",
                           "w4p16x8g128zo",
                           "w4p16x8g128Z",
                           "w4p16x8gz",
                           "w4p16x8g-128",
                           "w4p16x8g+128",
                           "w4p16x8g 128",
                           "w4p16x8g128 ",
                           "w4p16x8g128.0",
                           "w4p16x8g0x80",
                           "w4p16x8g99999999999999999999",
                           "w4p16x4g128",
                           "w8p16x8g128",
                           "w8p16x4g0z",
                           "w8p16x4g64o",
                           "w8p16x4g",
                           "w8p16x4g16",
                           "w3p16x8g128",
                           "f16p16g128",
                           "w4p16x8g0128x"}) {
    expect_error<InvalidArgument>([&] { WeightFormat::parse(name); },
                                  {"[weight format]", "expected", std::string("got \"") + name + "\""});
  }
}

TEST(WeightFormat, SizesFollowFromTheName) {
  const WeightFormat w4 = WeightFormat::parse("w4p16x8g128");
  EXPECT_EQ(w4.padded_n(17), 32);
  EXPECT_EQ(w4.padded_k(2560), 2560);
  EXPECT_EQ(w4.padded_k(2561), 2688);
  EXPECT_EQ(w4.n_groups(2561), 21);
  EXPECT_EQ(w4.group_columns(2561), 128);
  EXPECT_EQ(w4.tile_bytes(128), 128 / 8 * 64);
  EXPECT_EQ(w4.packed_bytes(17, 129), 2 * 256 / 8 * 64);

  const WeightFormat whole = WeightFormat::parse("w8p16x4g0");
  EXPECT_EQ(whole.padded_k(1), 128);
  EXPECT_EQ(whole.padded_k(1152), 1152);
  EXPECT_EQ(whole.padded_k(4304), 4352);
  EXPECT_EQ(whole.n_groups(4304), 1);
  EXPECT_EQ(whole.group_columns(4304), 4352);
  EXPECT_EQ(whole.packed_bytes(16, 4304), 4352 / 4 * 64);

  const WeightFormat f16 = WeightFormat::parse("f16p16");
  EXPECT_EQ(f16.padded_k(588), 588);
  EXPECT_EQ(f16.n_groups(588), 0);
  EXPECT_EQ(f16.packed_bytes(17, 3), 2 * 3 * 16 * 2);
  EXPECT_EQ(WeightFormat::parse("f32p16").packed_bytes(16, 3), 3 * 16 * 4);
}

}  // namespace
}  // namespace vila
