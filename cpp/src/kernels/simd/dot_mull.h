// The integer dot product on plain NEON: widening multiplies, pairwise sums. Exact for weights in -127..127: a pair of
// products is at most 2 * 127 * 127 = 32258 and fits 16 bits.
#pragma once

// One operation per line.
// clang-format off
namespace vila::kernels::VILA_ISA_NS {

using A4 = int8x8_t;
inline A4 load_a4(const std::int8_t* p) {
  std::int32_t quad;
  __builtin_memcpy(&quad, p, sizeof quad);
  return vreinterpret_s8_s32(vdup_n_s32(quad));
}

// Sums of nibbles need no narrower form here.
using S4 = I32x16;
inline S4 zero_s4() { return zero_i32(); }
inline I32x16 widen(S4 sum) { return sum; }

inline constexpr std::int32_t kW8Bias = 0;
inline I32x16 dot4_s(I32x16 acc, W8 w, A4 a) {
  VILA_FOUR {
    const int16x8_t low = vmull_s8(vget_low_s8(w.v[i]), a);    // rows 0 and 1, four columns each
    const int16x8_t high = vmull_s8(vget_high_s8(w.v[i]), a);  // rows 2 and 3
    acc.v[i] = vpadalq_s16(acc.v[i], vpaddq_s16(low, high));
  }
  return acc;
}
inline I32x16 dot4_u(I32x16 acc, W8 w, A4 a) { return dot4_s(acc, w, a); }

}  // namespace vila::kernels::VILA_ISA_NS

#include "kernels/simd/panel_bytes.h"
