#include "engine/kv_cache.h"

#include <cstring>

#include <gtest/gtest.h>

namespace vila {
namespace {

TEST(KvCache, CopiesPositionsOfEveryHeadAndLayer) {
  LlamaConfig config{};
  config.n_layers = 2;
  config.n_kv_heads = 3;
  config.head_dim = 24;  // values are padded to 32
  KvCache from(config, 100, false);
  KvCache to(config, 100, false);
  EXPECT_EQ(from.capacity(), 128);
  for (const kernels::KvLayout& layer : from.layers()) {
    for (std::int64_t i = 0; i < 3 * 128 * 24; ++i) static_cast<float*>(layer.k)[i] = static_cast<float>(i);
    for (std::int64_t i = 0; i < 3 * 128 * 32; ++i) static_cast<float*>(layer.v)[i] = static_cast<float>(i);
  }
  to.copy_positions(from, 16, 40);
  const kernels::KvLayout& source = from.layers()[1];
  const kernels::KvLayout& copy = to.layers()[1];
  for (std::int64_t head = 0; head < 3; ++head) {
    const std::int64_t k_first = (head * 128 + 16) * 24;
    EXPECT_EQ(std::memcmp(static_cast<float*>(copy.k) + k_first, static_cast<float*>(source.k) + k_first, 24 * 24 * 4),
              0);
    const std::int64_t v_first = (head * 128 + 16) * 32;
    EXPECT_EQ(std::memcmp(static_cast<float*>(copy.v) + v_first, static_cast<float*>(source.v) + v_first, 24 * 32 * 4),
              0);
    EXPECT_EQ(static_cast<float*>(copy.v)[(head * 128 + 15) * 32], 0.0F);
    EXPECT_EQ(static_cast<float*>(copy.v)[(head * 128 + 40) * 32], 0.0F);
  }
  EXPECT_EQ(from.bytes(10), 2 * 3 * 10 * (24 + 32) * 4);
}

}  // namespace
}  // namespace vila
