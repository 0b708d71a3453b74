// Rows of f32 activations to symmetric int8 per group; see QuantizeArgs.
#pragma once

namespace vila::kernels::VILA_ISA_NS {

// Exact: the largest magnitude becomes 127 or -127, so every value fits; a group of zeros has scale 0. Below 2^-100 the
// factor 127 / bound might not be finite: such a group counts as zeros.
inline constexpr float kSmallestBound = 0x1p-100F;

// The largest of n magnitudes, 0 below kSmallestBound.
inline float largest_magnitude(const float* x, std::int64_t n) {
  F32x16 largest = zero_f32();
  std::int64_t i = 0;
  for (; i + 16 <= n; i += 16) largest = max(abs(load(x + i)), largest);
  const int rest = static_cast<int>(n - i);
  if (rest > 0) largest = max(abs(load_partial(x + i, rest)), largest);
  const float found = reduce_max(largest);
  return found >= kSmallestBound ? found : 0.0F;
}

// Source: dynamic symmetric quantisation as in LLM.int8() (Dettmers et al., arXiv:2208.07339), per group.
inline void quantize_group(const float* x, std::int64_t count, std::int64_t group, std::int8_t* q, float* scale,
                           std::int32_t* sum) {
  const float bound = largest_magnitude(x, count);
  *scale = bound / 127.0F;
  const F32x16 inverse = splat(bound > 0 ? 127.0F / bound : 0.0F);
  I32x16 total = zero_i32();
  for (std::int64_t k = 0; k < group; k += 16) {
    const std::int64_t left = count - k;
    const F32x16 value = left >= 16 ? load(x + k) : left > 0 ? load_partial(x + k, static_cast<int>(left)) : zero_f32();
    const I32x16 rounded = round_to_i32(mul(value, inverse));
    total = add(total, rounded);
    store_s8(q + k, rounded);
  }
  *sum = static_cast<std::int32_t>(reduce_add(to_f32(total)));  // below 2^24, so the float sum is exact
}

inline void quantize_s8(const QuantizeArgs& p, Range rows) {
  const std::int64_t groups = p.k_padded / p.group;
  for (std::int64_t m = rows.begin; m < rows.end; ++m) {
    for (std::int64_t g = 0; g < groups; ++g) {
      const std::int64_t first = g * p.group;
      const std::int64_t left = p.k - first;
      quantize_group(p.x + m * p.x_stride + first,
                     left < 0         ? 0
                     : left < p.group ? left
                                      : p.group,
                     p.group, p.q + m * p.k_padded + first, p.scale + m * groups + g, p.sum + m * groups + g);
    }
    const std::int64_t parts = p.weight_group / p.group;
    for (std::int64_t first = 0; first < groups; first += parts) {
      float total = 0.0F;
      for (std::int64_t g = m * groups + first; g < m * groups + first + parts; ++g) {
        total = __builtin_fmaf(p.scale[g], static_cast<float>(p.sum[g]), total);
      }
      p.weighted_sum[(m * groups + first) / parts] = total;
    }
  }
}

}  // namespace vila::kernels::VILA_ISA_NS
