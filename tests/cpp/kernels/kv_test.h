// A cache of keys and values of its own memory for the tests, filled with what no kernel writes (NaN, or the least
// integer with NaN as scale): whoever reads what was never written, shows.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "kernels/kernel_table.h"

namespace vila::kernels {

inline constexpr std::array kKvTypes{KvType::f32, KvType::f16, KvType::int8, KvType::int16};

inline std::string name_of(KvType type) {
  switch (type) {
    case KvType::f32:
      return "f32";
    case KvType::f16:
      return "f16";
    case KvType::int8:
      return "int8";
    case KvType::int16:
      return "int16";
  }
  return "unknown";
}

class TestCache {
 public:
  /// `capacity` is rounded up to whole blocks; blocks lie further apart than they must.
  TestCache(std::int64_t n_kv_heads, std::int64_t head_dim, std::int64_t capacity, KvType type) {
    layout.n_kv_heads = n_kv_heads;
    layout.head_dim = head_dim;
    layout.capacity = (capacity + kAttentionBlock - 1) / kAttentionBlock * kAttentionBlock;
    layout.type = type;
    layout.block_stride = layout.block_bytes() + 64;
    words.resize(static_cast<std::size_t>(layout.capacity / kAttentionBlock * layout.block_stride / 4));
    auto* bytes = reinterpret_cast<std::uint8_t*>(words.data());
    for (std::size_t i = 0; i < words.size(); ++i) {
      const float nan = std::numeric_limits<float>::quiet_NaN();
      const std::array<std::uint16_t, 2> half_nans{kHalfNan, kHalfNan};
      std::memcpy(bytes + 4 * i, type == KvType::f16 ? static_cast<const void*>(half_nans.data()) : &nan, 4);
    }
    layout.data = words.data();
    if (!layout.scaled()) return;
    const std::int64_t n_bytes = layout.key_bytes() + layout.value_bytes();
    for (std::int64_t block = 0; block < layout.capacity / kAttentionBlock; ++block) {
      for (std::int64_t head = 0; head < n_kv_heads; ++head) {
        std::uint8_t* tile = bytes + block * layout.block_stride + head * layout.tile_bytes();
        for (std::int64_t i = 0; i < n_bytes; ++i) {
          tile[i] = type == KvType::int8 || i % 2 == 1 ? 0x80 : 0;  // -128 or -32768, the least significant byte first
        }
      }
    }
  }
  TestCache(const TestCache&) = delete;
  TestCache& operator=(const TestCache&) = delete;

  static constexpr std::uint16_t kHalfNan = 0x7e00;

  KvLayout layout;
  std::vector<std::uint32_t> words;  // all memory
};

}  // namespace vila::kernels
