// Row-wise normalisation: RMSNorm (Zhang & Sennrich, arXiv:1910.07467) and LayerNorm (Ba et al., arXiv:1607.06450).
#pragma once

#include <cstdint>

#include "kernels/kernel_table.h"

namespace vila::kernels::VILA_ISA_NS {

// 1 / sqrt(sum / c + eps) in every lane.
inline F32x16 inverse_root_mean(F32x16 partial_sums, std::int64_t c, float eps) {
  const F32x16 mean = splat(reduce_add(partial_sums) / static_cast<float>(c));
  return div(splat(1.0F), sqrt(add(mean, splat(eps))));
}

// Shapes   x, y [M, c], weight [c].
// Exact    16 partial sums of squares over ascending columns, one fixed tree; one order on every ISA.
// Cost     two passes over a row that stays in the first cache.
static void rms_norm(const NormArgs& p, Range rows) {
  const std::int64_t whole = p.c / 16 * 16;
  const int rest = static_cast<int>(p.c - whole);
  for (std::int64_t m = rows.begin; m < rows.end; ++m) {
    const float* x = p.x + m * p.x_stride;
    float* y = p.y + m * p.y_stride;
    F32x16 squares = zero_f32();
    for (std::int64_t i = 0; i < whole; i += 16) {
      const F32x16 v = load(x + i);
      squares = fma(v, v, squares);
    }
    const F32x16 tail = load_partial(x + whole, rest);
    const F32x16 factor = inverse_root_mean(fma(tail, tail, squares), p.c, p.eps);
    for (std::int64_t i = 0; i < whole; i += 16) store(y + i, mul(mul(load(x + i), factor), load(p.weight + i)));
    store_partial(y + whole, mul(mul(tail, factor), load_partial(p.weight + whole, rest)), rest);
  }
}

// Shapes   x, y [M, c], weight, bias [c]; bias may be null.
// Exact    mean first, then the squares of the differences: no cancellation; 16 partial sums each, one fixed tree.
// Cost     three passes over a row that stays in the first cache.
static void layer_norm(const NormArgs& p, Range rows) {
  const std::int64_t whole = p.c / 16 * 16;
  const int rest = static_cast<int>(p.c - whole);
  for (std::int64_t m = rows.begin; m < rows.end; ++m) {
    const float* x = p.x + m * p.x_stride;
    float* y = p.y + m * p.y_stride;
    F32x16 sum = zero_f32();
    for (std::int64_t i = 0; i < whole; i += 16) sum = add(sum, load(x + i));
    const F32x16 tail = load_partial(x + whole, rest);
    const F32x16 mean = splat(reduce_add(add(sum, tail)) / static_cast<float>(p.c));

    F32x16 squares = zero_f32();
    for (std::int64_t i = 0; i < whole; i += 16) {
      const F32x16 d = sub(load(x + i), mean);
      squares = fma(d, d, squares);
    }
    float means[16];
    store(means, mean);
    const F32x16 tail_difference = sub(tail, load_partial(means, rest));  // 0 beyond the row
    const F32x16 factor = inverse_root_mean(fma(tail_difference, tail_difference, squares), p.c, p.eps);

    for (std::int64_t i = 0; i < whole; i += 16) {
      const F32x16 bias = p.bias != nullptr ? load(p.bias + i) : zero_f32();
      store(y + i, fma(mul(sub(load(x + i), mean), factor), load(p.weight + i), bias));
    }
    const F32x16 bias = p.bias != nullptr ? load_partial(p.bias + whole, rest) : zero_f32();
    store_partial(y + whole, fma(mul(tail_difference, factor), load_partial(p.weight + whole, rest), bias), rest);
  }
}

}  // namespace vila::kernels::VILA_ISA_NS
