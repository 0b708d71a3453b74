// Writes new rows of keys and values into a layer's cache (KvLayout): keys transposed inside blocks of 16 positions.
#pragma once

#include <cstdint>

#include "kernels/kernel_table.h"

namespace vila::kernels::VILA_ISA_NS {

inline void store_as(float* p, F32x16 a) { store(p, a); }
inline void store_as(std::uint16_t* p, F32x16 a) { store_f16(p, a); }

// Shapes   k, v [M, Hkv * D]; cache keys [Hkv][capacity/16][D][16], values [Hkv][capacity][Dp].
// Exact    a copy, or one rounding to half precision.
// Cost     one conversion per 16 values; keys are then scattered at a distance of 16 elements.
template <class T>
void append_rows(const KvAppendArgs& p, Range rows) {
  const KvLayout& cache = p.cache;
  const std::int64_t d = cache.head_dim;
  const std::int64_t dp = (d + 15) / 16 * 16;
  for (std::int64_t h = 0; h < cache.n_kv_heads; ++h) {
    T* keys = static_cast<T*>(cache.k) + h * cache.capacity * d;
    T* values = static_cast<T*>(cache.v) + h * cache.capacity * dp;
    for (std::int64_t m = rows.begin; m < rows.end; ++m) {
      const std::int64_t position = p.first_position + m;
      const float* k = p.k + m * p.k_stride + h * d;
      const float* v = p.v + m * p.v_stride + h * d;
      T* key = keys + position / 16 * 16 * d + position % 16;
      T* value = values + position * dp;
      for (std::int64_t i = 0; i < d; i += 16) {
        const int n = static_cast<int>(d - i < 16 ? d - i : 16);
        T column[16];
        store_as(column, load_partial(k + i, n));
        for (int j = 0; j < n; ++j) key[(i + j) * 16] = column[j];
        store_as(value + i, load_partial(v + i, n));
      }
    }
  }
}

static void kv_append(const KvAppendArgs& p, Range rows) {
  if (p.cache.f16) return append_rows<std::uint16_t>(p, rows);
  append_rows<float>(p, rows);
}

}  // namespace vila::kernels::VILA_ISA_NS
