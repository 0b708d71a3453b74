// Rows appended to the cache: exact places, one rounding to half, zeros in the padding, nothing else touched.
#include <cmath>

#include "kernels/kernel_test.h"
#include "kernels/kv_test.h"
#include "reference/reference.h"
#include "support/random.h"

namespace vila::kernels {
namespace {

class KvAppend : public KernelTest {};

TEST_P(KvAppend, WritesEveryElementToItsPlace) {
  for (const bool f16 : {false, true}) {
    for (const std::int64_t dim : {1, 16, 20, 64, 72, 80, 128}) {
      for (const std::int64_t first : {0, 5, 15, 16, 30}) {
        const std::int64_t heads = 3;
        const std::int64_t m = 18;
        const std::int64_t stride = heads * dim + 7;
        testing_support::Random random(static_cast<std::uint64_t>(dim + first));
        const std::vector<float> k = random.normals(m * stride);
        const std::vector<float> v = random.normals(m * stride);
        TestCache cache(heads, dim, 64, f16);
        const KvAppendArgs args{k.data(), v.data(), stride, stride, first, cache.layout};
        table().kv_append(args, {0, m});
        const auto stored = [&](float x) { return f16 ? reference::half_to_double(reference::double_to_half(x)) : x; };
        for (std::int64_t h = 0; h < heads; ++h) {
          for (std::int64_t position = 0; position < 64; ++position) {
            const bool written = position >= first && position < first + m;
            const std::int64_t padded = (dim + 15) / 16 * 16;
            for (std::int64_t d = 0; d < padded; ++d) {
              const double value = reference::cached_value(cache.layout, h, position, d);
              const auto at = static_cast<std::size_t>((position - first) * stride + h * dim + d);
              if (!written) {
                ASSERT_TRUE(std::isnan(value)) << position;
                if (d < dim) {
                  ASSERT_TRUE(std::isnan(reference::cached_key(cache.layout, h, position, d))) << position;
                }
              } else if (d < dim) {
                ASSERT_EQ(value, stored(v[at])) << position << " " << d;
                ASSERT_EQ(reference::cached_key(cache.layout, h, position, d), stored(k[at])) << position << " " << d;
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

TEST_P(KvAppend, EqualsTheScalarTableUnderEverySplitOfTheRows) {
  for (const bool f16 : {false, true}) {
    testing_support::Random random(4);
    const std::vector<float> k = random.normals(20 * 144);
    const std::vector<float> v = random.normals(20 * 144);
    TestCache expected(2, 72, 48, f16);
    scalar().kv_append({k.data(), v.data(), 144, 144, 9, expected.layout}, {0, 20});
    for (const std::vector<Range>& ranges : range_splits(20)) {
      TestCache actual(2, 72, 48, f16);
      for (const Range range : ranges) table().kv_append({k.data(), v.data(), 144, 144, 9, actual.layout}, range);
      ASSERT_TRUE(same_bits(actual.keys, expected.keys));
      ASSERT_TRUE(same_bits(actual.values, expected.values));
      ASSERT_TRUE(same_bits(actual.half_keys, expected.half_keys));
      ASSERT_TRUE(same_bits(actual.half_values, expected.half_values));
    }
  }
}

VILA_FOR_EVERY_TABLE(KvAppend);

}  // namespace
}  // namespace vila::kernels
