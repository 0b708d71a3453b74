// One head's columns at one position to symmetric int16: queries, keys and values of attention in integers.
#pragma once

#include "kernels/quantize_s8.h"

namespace vila::kernels::VILA_ISA_NS {

// q[0 .. n rounded up to 16) = round_half_even(x * (bound / max|x|)), columns from n on 0. Gives the scale, max|x| /
// bound; a row whose magnitudes all lie below kSmallestBound counts as zeros.
inline float quantize_s16(const float* x, std::int64_t n, int bound, std::int16_t* q) {
  const float largest = largest_magnitude(x, n);
  const auto steps = static_cast<float>(bound);
  const F32x16 inverse = splat(largest > 0 ? steps / largest : 0.0F);
  for (std::int64_t i = 0; i < n; i += 16) {
    const std::int64_t left = n - i;
    const F32x16 value = left >= 16 ? load(x + i) : load_partial(x + i, static_cast<int>(left));
    store_s16(q + i, round_to_i32(mul(value, inverse)));
  }
  return largest / steps;
}

}  // namespace vila::kernels::VILA_ISA_NS
