#include "engine/kv_cache.h"

#include <cstring>

#include <gtest/gtest.h>

namespace vila {
namespace {

using kernels::KvType;

LlamaConfig small_config() {
  LlamaConfig config{};
  config.n_layers = 2;
  config.n_kv_heads = 3;
  config.head_dim = 24;  // values are padded to 32
  return config;
}

// Fills every tile with its block, layer and head.
void fill(const KvCache& cache) {
  unsigned char at = 1;
  for (const kernels::KvLayout& layer : cache.layers()) {
    for (std::int64_t block = 0; block < layer.capacity / 64; ++block) {
      for (std::int64_t head = 0; head < layer.n_kv_heads; ++head) {
        std::memset(static_cast<char*>(layer.data) + block * layer.block_stride + head * layer.tile_bytes(), at++,
                    static_cast<std::size_t>(layer.tile_bytes()));
      }
    }
  }
}

TEST(KvCache, TilesOfAllLayersAndHeadsLieApart) {
  for (const KvType type : {KvType::f32, KvType::f16, KvType::int8}) {
    const KvCache cache(small_config(), 130, type);
    EXPECT_EQ(cache.capacity(), 192);
    EXPECT_EQ(cache.type(), type);
    fill(cache);
    unsigned char expected = 1;
    for (const kernels::KvLayout& layer : cache.layers()) {
      for (std::int64_t block = 0; block < 3; ++block) {
        for (std::int64_t head = 0; head < 3; ++head, ++expected) {
          const auto* tile =
              static_cast<unsigned char*>(layer.data) + block * layer.block_stride + head * layer.tile_bytes();
          ASSERT_EQ(tile[0], expected);
          ASSERT_EQ(tile[layer.tile_bytes() - 1], expected);
        }
      }
    }
  }
}

TEST(KvCache, CopiesTheBlocksOfPositionsOfEveryHeadAndLayer) {
  for (const KvType type : {KvType::f32, KvType::f16, KvType::int8}) {
    const KvCache from(small_config(), 256, type);
    fill(from);
    KvCache to(small_config(), 256, type);
    to.copy_positions(from, 64, 64);  // nothing
    to.copy_positions(from, 70, 130);
    for (std::size_t l = 0; l < 2; ++l) {
      const kernels::KvLayout& source = from.layers()[l];
      const kernels::KvLayout& copy = to.layers()[l];
      for (std::int64_t block = 0; block < 4; ++block) {
        const auto* expected = static_cast<const char*>(source.data) + block * source.block_stride;
        const auto* found = static_cast<const char*>(copy.data) + block * copy.block_stride;
        if (block == 1 || block == 2) {
          EXPECT_EQ(std::memcmp(found, expected, static_cast<std::size_t>(copy.block_bytes())), 0);
        } else {
          EXPECT_EQ(found[0], 0) << "block " << block;
        }
      }
    }
  }
}

TEST(KvCache, Int8TakesHalfAndItsScales) {
  const LlamaConfig config = small_config();
  const auto bytes = [&](KvType type) { return KvCache(config, 100, type).bytes(10); };
  EXPECT_EQ(bytes(KvType::f32), 2 * 3 * 10 * (24 + 32) * 4);
  EXPECT_EQ(bytes(KvType::f16), 2 * 3 * 10 * (24 + 32) * 2);
  EXPECT_EQ(bytes(KvType::int8), 2 * 3 * 10 * (24 + 32 + 2 * 4));
  EXPECT_EQ(KvCache::bytes_per_position(config, KvType::int8), 2 * 3 * (24 + 32 + 2 * 4));
}

TEST(KvCache, ReleasedMemoryIsZero) {
  KvCache cache(small_config(), 64, KvType::f16);
  fill(cache);
  cache.release();
  EXPECT_EQ(static_cast<char*>(cache.layers()[1].data)[5], 0);
}

}  // namespace
}  // namespace vila
