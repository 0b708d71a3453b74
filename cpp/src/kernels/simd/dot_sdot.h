// The integer dot product on ARM with the dotprod extension: sdot sums four signed products per lane. By-lane forms
// take one of four activation quads from a register, so that sixteen activations are one load.
#pragma once

// One operation per line.
// clang-format off
namespace vila::kernels::VILA_ISA_NS {

using A4 = int8x16_t;
inline A4 load_a4(const std::int8_t* p) {
  std::int32_t quad;
  __builtin_memcpy(&quad, p, sizeof quad);
  return vreinterpretq_s8_s32(vdupq_n_s32(quad));
}

// Sums of nibbles need no narrower form here.
using S4 = I32x16;
inline S4 zero_s4() { return zero_i32(); }
inline I32x16 widen(S4 sum) { return sum; }

inline constexpr std::int32_t kW8Bias = 0;
inline I32x16 dot4_s(I32x16 acc, W8 w, A4 a) {
  VILA_FOUR acc.v[i] = vdotq_s32(acc.v[i], w.v[i], a);
  return acc;
}
// 0..15 is a signed byte too.
inline I32x16 dot4_u(I32x16 acc, W8 w, A4 a) { return dot4_s(acc, w, a); }

/// Sixteen activations of one row.
using A16 = int8x16_t;
inline A16 load_a16(const std::int8_t* p) { return vld1q_s8(p); }

/// acc + sum over 4 columns of w times the activations 4 * kQuad..4 * kQuad + 3.
template <int kQuad>
[[gnu::always_inline]] inline I32x16 dot4_lane(I32x16 acc, W8 w, A16 a) {
  VILA_FOUR acc.v[i] = vdotq_laneq_s32(acc.v[i], w.v[i], a, kQuad);
  return acc;
}

}  // namespace vila::kernels::VILA_ISA_NS

#include "kernels/simd/panel_bytes.h"
