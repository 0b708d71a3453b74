// Register blocks of 4 rows x 8 outputs with sdot; see block_neon.h. A weight vector holds 4 outputs x 4 columns and a
// lane of an activation vector one row's quad: 64 multiply-adds a step, every operand from a register.
#pragma once

#include "kernels/simd/block_step.h"

namespace vila::kernels::VILA_ISA_NS {

// v[2 * row + half]: outputs 4 * half..4 * half + 3.
struct Block {
  int32x4_t v[8];
};
struct BlockF {
  float32x4_t v[8];
};

/// Eight columns of 16 outputs (4 + 4) to the panels of outputs 0..7 and 8..15: [columns / 4][8][4].
VILA_INLINE void store_block_w(std::uint8_t*& low, std::uint8_t*& high, W8 first, W8 second) {
  store_step(low, {{first.v[0], first.v[1], second.v[0], second.v[1]}});
  store_step(high, {{first.v[2], first.v[3], second.v[2], second.v[3]}});
}

/// Sixteen columns of four rows: [4][16].
VILA_INLINE void store_block_a(std::int8_t* p, int8x16_t r0, int8x16_t r1, int8x16_t r2, int8x16_t r3) {
  vst1q_s8(p, r0);
  vst1q_s8(p + 16, r1);
  vst1q_s8(p + 32, r2);
  vst1q_s8(p + 48, r3);
}

/// The scales of four rows in four parts: [row][part].
inline constexpr int kScaleFloats = 4;
using BlockScales = float32x4x4_t;
VILA_INLINE BlockScales load_block_scales(const float* p) { return vld1q_f32_x4(p); }
VILA_INLINE void store_block_scales(float* p, float32x4_t r0, float32x4_t r1, float32x4_t r2, float32x4_t r3) {
  vst1q_f32(p, r0);
  vst1q_f32(p + 4, r1);
  vst1q_f32(p + 8, r2);
  vst1q_f32(p + 12, r3);
}

template <int kQuad>
VILA_INLINE void block_quad(Block& sum, int8x16_t low, int8x16_t high, const int8x16x4_t& a) {
  sum.v[0] = vdotq_laneq_s32(sum.v[0], low, a.val[0], kQuad);
  sum.v[1] = vdotq_laneq_s32(sum.v[1], high, a.val[0], kQuad);
  sum.v[2] = vdotq_laneq_s32(sum.v[2], low, a.val[1], kQuad);
  sum.v[3] = vdotq_laneq_s32(sum.v[3], high, a.val[1], kQuad);
  sum.v[4] = vdotq_laneq_s32(sum.v[4], low, a.val[2], kQuad);
  sum.v[5] = vdotq_laneq_s32(sum.v[5], high, a.val[2], kQuad);
  sum.v[6] = vdotq_laneq_s32(sum.v[6], low, a.val[3], kQuad);
  sum.v[7] = vdotq_laneq_s32(sum.v[7], high, a.val[3], kQuad);
}

/// Sixteen columns: 128 bytes of a weight panel, 64 of packed activations; both pointers move on.
VILA_INLINE void block_dot(Block& sum, const std::uint8_t*& w, const std::int8_t*& a) {
  const int8x16x4_t rows = load_step(a);
  const int8x16x4_t first = load_step(w);
  block_quad<0>(sum, first.val[0], first.val[1], rows);
  block_quad<1>(sum, first.val[2], first.val[3], rows);
  const int8x16x4_t second = load_step(w);
  block_quad<2>(sum, second.val[0], second.val[1], rows);
  block_quad<3>(sum, second.val[2], second.val[3], rows);
}

/// x times lane 0; GCC makes two instructions of the intrinsic.
VILA_INLINE float32x4_t mul_first(float32x4_t x, float32x4_t lanes) {
  float32x4_t product;
  asm("fmul %0.4s, %1.4s, %2.s[0]" : "=w"(product) : "w"(x), "w"(lanes));
  return product;
}

/// dots = fma(sum, the row's scale in the part, dots), dots being 0 in the first part.
template <int kPart>
VILA_INLINE void block_scale(BlockF& dots, const Block& sum, const BlockScales& scales) {
  VILA_UNROLL for (int i = 0; i < 8; ++i) {
    const float32x4_t f = vcvtq_f32_s32(sum.v[i]);
    const float32x4_t row = scales.val[i / 2];
    dots.v[i] = kPart == 0 ? mul_first(f, row) : vfmaq_laneq_f32(dots.v[i], f, row, kPart);
  }
}

/// Outputs 4 * half..4 * half + 3 of a row.
template <int kRow, int kHalf>
VILA_INLINE float32x4_t block_part(const BlockF& dots) {
  return dots.v[2 * kRow + kHalf];
}

}  // namespace vila::kernels::VILA_ISA_NS

#include "kernels/simd/block_neon.h"
