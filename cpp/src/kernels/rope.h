// Rotary position embedding, rotate-half form (Su et al., arXiv:2104.09864), in place.
#pragma once

#include <cstdint>

#include "kernels/kernel_table.h"

namespace vila::kernels::VILA_ISA_NS {

// Shapes   x [M, n_heads * D], cos and sin [position, D / 2]; D is even.
// Exact    one product and one fma per output, (x1 cos) - x2 sin and (x2 cos) + x1 sin.
// Cost     one pass; the tables of a position serve all heads of a row.
static void rope(const RopeArgs& p, Range rows) {
  const std::int64_t half = p.head_dim / 2;
  for (std::int64_t m = rows.begin; m < rows.end; ++m) {
    const float* cos_row = p.cos_table + (p.first_position + m) * half;
    const float* sin_row = p.sin_table + (p.first_position + m) * half;
    for (std::int64_t h = 0; h < p.n_heads; ++h) {
      float* low = p.x + m * p.x_stride + h * p.head_dim;
      float* high = low + half;
      for (std::int64_t i = 0; i < half; i += 16) {
        const int n = static_cast<int>(half - i < 16 ? half - i : 16);
        const F32x16 c = load_partial(cos_row + i, n);
        const F32x16 s = load_partial(sin_row + i, n);
        const F32x16 x1 = load_partial(low + i, n);
        const F32x16 x2 = load_partial(high + i, n);
        store_partial(low + i, fnma(x2, s, mul(x1, c)), n);
        store_partial(high + i, fma(x1, s, mul(x2, c)), n);
      }
    }
  }
}

}  // namespace vila::kernels::VILA_ISA_NS
