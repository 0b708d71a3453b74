// Rows appended to the cache: exact places, one rounding to half, int8 or int16, zeros in the padding, nothing else
// touched.
#include <algorithm>
#include <cmath>

#include "kernels/kernel_test.h"
#include "kernels/kv_test.h"
#include "reference/reference.h"
#include "support/random.h"

namespace vila::kernels {
namespace {

// What the cache must give back for column d of a head's row of `dim` columns; int16 has a bound for keys and one for
// values.
double stored(KvType type, const float* row, std::int64_t dim, std::int64_t d, int bound_s16) {
  if (type == KvType::f32) return row[d];
  if (type == KvType::f16) return reference::half_to_double(reference::double_to_half(row[d]));
  float largest = 0;
  for (std::int64_t i = 0; i < dim; ++i) largest = std::max(largest, std::abs(row[i]));
  const float bound = type == KvType::int8 ? 127.0F : static_cast<float>(bound_s16);
  const float factor = bound / largest;  // in f32, as the kernel has it: a value near a half may round either way else
  const float scale = largest / bound;
  return static_cast<double>(std::nearbyint(row[d] * factor)) * scale;
}

class KvAppend : public KernelTest {};

TEST_P(KvAppend, WritesEveryElementToItsPlace) {
  for (const KvType type : kKvTypes) {
    for (const std::int64_t dim : {1, 16, 20, 27, 64, 72, 80, 128}) {
      for (const std::int64_t first : {0, 5, 47, 63, 64, 78}) {
        const std::int64_t heads = 3;
        const std::int64_t m = 18;
        const std::int64_t stride = heads * dim + 7;
        testing_support::Random random(static_cast<std::uint64_t>(dim + first));
        const std::vector<float> k = random.normals(m * stride);
        const std::vector<float> v = random.normals(m * stride);
        TestCache cache(heads, dim, 128, type);
        const KvAppendArgs args{k.data(), v.data(), stride, stride, first, cache.layout};
        table().kv_append(args, {0, m});
        for (std::int64_t h = 0; h < heads; ++h) {
          for (std::int64_t position = 0; position < 128; ++position) {
            const bool written = position >= first && position < first + m;
            const std::int64_t padded = (dim + 15) / 16 * 16;
            const std::int64_t row = (position - first) * stride + h * dim;
            for (std::int64_t d = 0; d < padded; ++d) {
              const double value = reference::cached_value(cache.layout, h, position, d);
              if (!written) {
                ASSERT_TRUE(std::isnan(value)) << position;
                if (d < dim) {
                  ASSERT_TRUE(std::isnan(reference::cached_key(cache.layout, h, position, d))) << position;
                }
              } else if (d < dim) {
                ASSERT_EQ(value, stored(type, v.data() + row, dim, d, 1023))
                    << name_of(type) << " " << position << " " << d;
                ASSERT_EQ(reference::cached_key(cache.layout, h, position, d),
                          stored(type, k.data() + row, dim, d, 4095))
                    << name_of(type) << " " << position << " " << d;
              } else {
                ASSERT_EQ(value, 0.0) << "padding";
              }
            }
          }
        }
      }
    }
  }
}

TEST_P(KvAppend, ARowOfZerosIsExact) {
  for (const KvType type : {KvType::int8, KvType::int16}) {
    TestCache cache(1, 20, 64, type);
    const std::vector<float> zeros(20, 0.0F);
    table().kv_append({zeros.data(), zeros.data(), 20, 20, 3, cache.layout}, {0, 1});
    for (std::int64_t d = 0; d < 20; ++d) {
      EXPECT_EQ(reference::cached_key(cache.layout, 0, 3, d), 0.0);
      EXPECT_EQ(reference::cached_value(cache.layout, 0, 3, d), 0.0);
    }
  }
}

// The partner of the last of an odd number of key columns, which a product reads.
TEST_P(KvAppend, AnOddColumnOfKeysIsPairedWithZero) {
  TestCache cache(1, 5, 64, KvType::int16);
  const std::vector<float> ones(5, 1.0F);
  table().kv_append({ones.data(), ones.data(), 5, 5, 9, cache.layout}, {0, 1});
  const auto* keys = reinterpret_cast<const std::int16_t*>(cache.layout.data);
  for (std::int64_t d = 0; d < 6; ++d) EXPECT_EQ(keys[(d / 2 * 64 + 9) * 2 + d % 2], d < 5 ? 4095 : 0) << d;
}

TEST_P(KvAppend, EqualsTheScalarTableUnderEverySplitOfTheRows) {
  for (const KvType type : kKvTypes) {
    testing_support::Random random(4);
    const std::vector<float> k = random.normals(20 * 144);
    const std::vector<float> v = random.normals(20 * 144);
    TestCache expected(2, 72, 128, type);
    scalar().kv_append({k.data(), v.data(), 144, 144, 55, expected.layout}, {0, 20});
    for (const std::vector<Range>& ranges : range_splits(20)) {
      TestCache actual(2, 72, 128, type);
      for (const Range range : ranges) table().kv_append({k.data(), v.data(), 144, 144, 55, actual.layout}, range);
      ASSERT_TRUE(same_bits(actual.words, expected.words)) << name_of(type);
    }
  }
}

VILA_FOR_EVERY_TABLE(KvAppend);

}  // namespace
}  // namespace vila::kernels
