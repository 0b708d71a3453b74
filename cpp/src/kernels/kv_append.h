// Writes new rows of keys and values into the tiles of a layer's cache (KvLayout): keys transposed inside a tile.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/head_columns.h"
#include "kernels/kernel_table.h"
#include "kernels/quantize_s16.h"

namespace vila::kernels::VILA_ISA_NS {

inline void store_as(float* p, F32x16 a) { store(p, a); }
inline void store_as(std::uint16_t* p, F32x16 a) { store_f16(p, a); }

// One head's d columns at one position to the cache's type: row [dp], columns from d on are 0. Gives the scale, which
// only int8 and int16 have: one for all columns, because a score needs it once and a value's can join the softmax
// weight. int16 has a bound of its own for keys and for values, the others need none.
template <class T>
float to_cache_type(const float* x, std::int64_t d, std::int64_t dp, int, T* row) {
  for (std::int64_t i = 0; i < dp; i += 16) {
    const int n = static_cast<int>(d - i < 16 ? d - i : 16);
    store_as(row + i, load_partial(x + i, n));
  }
  return 1.0F;
}
inline float to_cache_type(const float* x, std::int64_t d, std::int64_t dp, int, std::int8_t* row) {
  float scale;
  std::int32_t sum;  // of no use here
  quantize_group(x, d, dp, row, &scale, &sum);
  return scale;
}
inline float to_cache_type(const float* x, std::int64_t d, std::int64_t, int bound, std::int16_t* row) {
  return quantize_s16(x, d, bound, row);
}

// Shapes   k, v [M, Hkv * D]; tiles of keys [D][64] and values [64][Dp], int8 with a scale per key and value; int16 in
//          pairs, keys [Dk / 2][64][2] and values [32][Dp][2], with scales too.
// Exact    a copy, one rounding to half precision, or the rounding of quantize_s8 or quantize_s16 with one group per
//          head.
// Cost     one conversion per 16 values; keys are then scattered at a distance of 64 elements.
template <class T>
void append_rows(const KvAppendArgs& p, Range rows) {
  constexpr std::int64_t kPair = std::is_same_v<T, std::int16_t> ? 2 : 1;  // elements side by side
  const KvLayout& cache = p.cache;
  const std::int64_t d = cache.head_dim;
  const std::int64_t dp = cache.padded_dim();
  const std::int64_t key_columns = (d + kPair - 1) / kPair * kPair;
  for (std::int64_t h = 0; h < cache.n_kv_heads; ++h) {
    for (std::int64_t m = rows.begin; m < rows.end; ++m) {
      const std::int64_t position = p.first_position + m;
      const std::int64_t slot = position % kAttentionBlock;
      char* tile =
          static_cast<char*>(cache.data) + position / kAttentionBlock * cache.block_stride + h * cache.tile_bytes();
      T* keys = reinterpret_cast<T*>(tile);
      T* values = reinterpret_cast<T*>(tile + cache.key_bytes());
      if (m + kRowsAhead < rows.end) {
        prefetch_columns(p.k + (m + kRowsAhead) * p.k_stride + h * d, d);
        prefetch_columns(p.v + (m + kRowsAhead) * p.v_stride + h * d, d);
      }
      T row[kMaxHeadDim];
      const float k_scale = to_cache_type(p.k + m * p.k_stride + h * d, d, dp, kScoreBound, row);
      for (std::int64_t i = 0; i < key_columns; ++i)
        keys[(i / kPair * kAttentionBlock + slot) * kPair + i % kPair] = row[i];
      T* value = kPair == 1 ? values + slot * dp : row;
      const float v_scale = to_cache_type(p.v + m * p.v_stride + h * d, d, dp, kValueBound, value);
      if constexpr (kPair > 1) {
        for (std::int64_t i = 0; i < dp; ++i) values[(slot / kPair * dp + i) * kPair + slot % kPair] = row[i];
      }
      if (cache.scaled()) {
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
    case KvType::int16:
      return append_rows<std::int16_t>(p, rows);
  }
}

}  // namespace vila::kernels::VILA_ISA_NS
