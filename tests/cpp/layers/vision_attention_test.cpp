// Attention of a picture's patches in f32 and in integers: which is chosen, that they agree, and what is refused.
#include "layers/vision_attention.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/dispatch.h"
#include "support/expect_error.h"
#include "support/random.h"
#include "vila/error.h"

namespace vila {
namespace {

using kernels::KvType;

TEST(VisionAttention, IntegersGoWithIntegerWeightsAndNarrowHeads) {
  const auto type = [](const char* format, std::int64_t head_dim) {
    return vision_kv_type(WeightFormat::parse(format), head_dim);
  };
  EXPECT_EQ(type("w8p16x4g0", 72), KvType::int16);
  EXPECT_EQ(type("w4p16x8g128", 128), KvType::int16);
  EXPECT_EQ(type("w8p16x4g0", 129), KvType::f32);
  EXPECT_EQ(type("f16p16", 72), KvType::f32);
  EXPECT_EQ(type("f32p16", 72), KvType::f32);
}

/// 50 patches of 2 heads of `head_dim` columns.
std::vector<float> run(std::int64_t head_dim, KvType type, int threads) {
  ThreadPool pool(threads);
  Workspace workspace;
  ExecContext ctx{*kernels::compiled_kernels().back(), pool, workspace};
  const std::int64_t cols = 2 * head_dim;
  testing_support::Random random(1);
  std::vector<float> q = random.normals(50 * cols);
  std::vector<float> k = random.normals(50 * cols);
  std::vector<float> v = random.normals(50 * cols);
  std::vector<float> out(q.size());
  const auto rows = [&](std::vector<float>& x) { return Rows{x.data(), 50, cols, cols}; };
  vision_attention(ctx, rows(q), rows(k), rows(v), 2, rows(out), type);
  return out;
}

TEST(VisionAttention, IntegersAgreeWithFloatsOnAnyNumberOfThreads) {
  const std::vector<float> exact = run(72, KvType::f32, 1);
  const std::vector<float> integers = run(72, KvType::int16, 1);
  // Values are kept in steps of max|v| / 1023, at most 6 / 1023; queries and keys in finer ones, of sums of 72
  // products.
  for (std::size_t i = 0; i < exact.size(); ++i) ASSERT_NEAR(integers[i], exact[i], 6.0 / 1023) << i;
  EXPECT_EQ(run(72, KvType::int16, 3), integers);
}

TEST(VisionAttention, HeadsTooWideForIntegersAreRefused) {
  testing_support::expect_error<InternalError>([] { run(130, KvType::int16, 1); }, {"takes_head_dim"});
}

}  // namespace
}  // namespace vila
