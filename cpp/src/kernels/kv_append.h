// Writes new rows of keys and values into the tiles of a layer's cache (KvLayout): keys transposed inside a tile.
#pragma once

#include <cstdint>

#include "kernels/kernel_table.h"

namespace vila::kernels::VILA_ISA_NS {

inline void store_as(float* p, F32x16 a) { store(p, a); }
inline void store_as(std::uint16_t* p, F32x16 a) { store_f16(p, a); }

// One head's d columns at one position to the cache's type: row [dp], columns from d on are 0. Gives the scale, which
// only int8 has: one for all columns, because a score needs it once and a value's can join the softmax weight.
template <class T>
float to_cache_type(const float* x, std::int64_t d, std::int64_t dp, T* row) {
  for (std::int64_t i = 0; i < dp; i += 16) {
    const int n = static_cast<int>(d - i < 16 ? d - i : 16);
    store_as(row + i, load_partial(x + i, n));
  }
  return 1.0F;
}
inline float to_cache_type(const float* x, std::int64_t d, std::int64_t dp, std::int8_t* row) {
  float scale;
  std::int32_t sum;  // of no use here
  quantize_group(x, d, dp, row, &scale, &sum);
  return scale;
}

// Shapes   k, v [M, Hkv * D]; tiles of keys [D][64] and values [64][Dp], int8 with a scale per key and value.
// Exact    a copy, one rounding to half precision, or the rounding of quantize_s8 with one group per head.
// Cost     one conversion per 16 values; keys are then scattered at a distance of 64 elements.
template <class T>
void append_rows(const KvAppendArgs& p, Range rows) {
  const KvLayout& cache = p.cache;
  const std::int64_t d = cache.head_dim;
  const std::int64_t dp = cache.padded_dim();
  for (std::int64_t h = 0; h < cache.n_kv_heads; ++h) {
    for (std::int64_t m = rows.begin; m < rows.end; ++m) {
      const std::int64_t position = p.first_position + m;
      const std::int64_t slot = position % kAttentionBlock;
      char* tile =
          static_cast<char*>(cache.data) + position / kAttentionBlock * cache.block_stride + h * cache.tile_bytes();
      T* key = reinterpret_cast<T*>(tile) + slot;
      T* value = reinterpret_cast<T*>(tile + cache.key_bytes()) + slot * dp;
      T column[kMaxHeadDim];
      const float k_scale = to_cache_type(p.k + m * p.k_stride + h * d, d, dp, column);
      for (std::int64_t i = 0; i < d; ++i) key[i * kAttentionBlock] = column[i];
      const float v_scale = to_cache_type(p.v + m * p.v_stride + h * d, d, dp, value);
      if constexpr (sizeof(T) == 1) {
        float* scales = reinterpret_cast<float*>(tile + cache.key_bytes() + cache.value_bytes());
        scales[slot] = k_scale;
        scales[kAttentionBlock + slot] = v_scale;
      }
    }
  }
}

static void kv_append(const KvAppendArgs& p, Range rows) {
  switch (p.cache.type) {
    case KvType::f32:
      return append_rows<float>(p, rows);
    case KvType::f16:
      return append_rows<std::uint16_t>(p, rows);
    case KvType::int8:
      return append_rows<std::int8_t>(p, rows);
  }
}

}  // namespace vila::kernels::VILA_ISA_NS
