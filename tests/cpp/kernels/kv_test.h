// A cache of keys and values of its own memory for the tests, filled with NaN: whoever reads what was never written,
// shows.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/kernel_table.h"

namespace vila::kernels {

class TestCache {
 public:
  TestCache(std::int64_t n_kv_heads, std::int64_t head_dim, std::int64_t capacity, bool f16) {
    const std::int64_t padded = (head_dim + 15) / 16 * 16;
    const auto n_keys = static_cast<std::size_t>(n_kv_heads * capacity * head_dim);
    const auto n_values = static_cast<std::size_t>(n_kv_heads * capacity * padded);
    layout.n_kv_heads = n_kv_heads;
    layout.head_dim = head_dim;
    layout.capacity = capacity;
    layout.f16 = f16;
    if (f16) {
      half_keys.assign(n_keys, kHalfNan);
      half_values.assign(n_values, kHalfNan);
      layout.k = half_keys.data();
      layout.v = half_values.data();
    } else {
      keys.assign(n_keys, std::numeric_limits<float>::quiet_NaN());
      values.assign(n_values, std::numeric_limits<float>::quiet_NaN());
      layout.k = keys.data();
      layout.v = values.data();
    }
  }
  TestCache(const TestCache&) = delete;
  TestCache& operator=(const TestCache&) = delete;

  static constexpr std::uint16_t kHalfNan = 0x7e00;

  KvLayout layout;
  std::vector<float> keys, values;
  std::vector<std::uint16_t> half_keys, half_values;
};

}  // namespace vila::kernels
