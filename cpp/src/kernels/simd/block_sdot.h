// Register blocks of 4 rows x 8 outputs with sdot; see block_neon.h. A weight vector holds 4 outputs x 4 columns and a lane
// of an activation vector one row's quad: 64 multiply-adds a step, every operand from a register.
#pragma once

namespace vila::kernels::VILA_ISA_NS {

// v[2 * row + half]: outputs 4 * half..4 * half + 3.
struct Block {
  int32x4_t v[8];
};
struct BlockF {
  float32x4_t v[8];
};

/// Eight columns of 16 outputs (4 + 4) to the panels of outputs 0..7 and 8..15: [columns / 4][8][4].
VILA_INLINE void store_block_w(std::uint8_t* low, std::uint8_t* high, W8 first, W8 second) {
  vst1q_s8_x4(reinterpret_cast<std::int8_t*>(low), {{first.v[0], first.v[1], second.v[0], second.v[1]}});
  vst1q_s8_x4(reinterpret_cast<std::int8_t*>(high), {{first.v[2], first.v[3], second.v[2], second.v[3]}});
}

/// Sixteen columns of four rows: [4][16].
VILA_INLINE void store_block_a(std::int8_t* p, int8x16_t r0, int8x16_t r1, int8x16_t r2, int8x16_t r3) {
  vst1q_s8_x4(p, {{r0, r1, r2, r3}});
}

/// The scales of four rows as block_scale wants them.
inline constexpr int kScaleFloats = 4;
VILA_INLINE void store_block_scale(float* p, float32x4_t scale) { vst1q_f32(p, scale); }

template <int kQuad>
VILA_INLINE void block_quad(Block& sum, int8x16_t low, int8x16_t high, const int8x16x4_t& a) {
  VILA_UNROLL for (int r = 0; r < 4; ++r) {
    sum.v[2 * r] = vdotq_laneq_s32(sum.v[2 * r], low, a.val[r], kQuad);
    sum.v[2 * r + 1] = vdotq_laneq_s32(sum.v[2 * r + 1], high, a.val[r], kQuad);
  }
}

/// Sixteen columns: 128 bytes of a weight panel, 64 of packed activations; both pointers move on.
VILA_INLINE Block block_dot(Block sum, const std::uint8_t*& w, const std::int8_t*& a) {
  const int8x16x4_t rows = vld1q_s8_x4(a);
  a += 64;
  const int8x16x4_t first = vld1q_s8_x4(reinterpret_cast<const std::int8_t*>(w));
  w += 64;
  block_quad<0>(sum, first.val[0], first.val[1], rows);
  block_quad<1>(sum, first.val[2], first.val[3], rows);
  const int8x16x4_t second = vld1q_s8_x4(reinterpret_cast<const std::int8_t*>(w));
  w += 64;
  block_quad<2>(sum, second.val[0], second.val[1], rows);
  block_quad<3>(sum, second.val[2], second.val[3], rows);
  return sum;
}

/// dots = fma(sum, the row's scale, dots)
VILA_INLINE BlockF block_scale(BlockF dots, Block sum, const float* scale) {
  const float32x4_t s = vld1q_f32(scale);
  VILA_UNROLL for (int h = 0; h < 2; ++h) {
    dots.v[h] = vfmaq_laneq_f32(dots.v[h], vcvtq_f32_s32(sum.v[h]), s, 0);
    dots.v[2 + h] = vfmaq_laneq_f32(dots.v[2 + h], vcvtq_f32_s32(sum.v[2 + h]), s, 1);
    dots.v[4 + h] = vfmaq_laneq_f32(dots.v[4 + h], vcvtq_f32_s32(sum.v[4 + h]), s, 2);
    dots.v[6 + h] = vfmaq_laneq_f32(dots.v[6 + h], vcvtq_f32_s32(sum.v[6 + h]), s, 3);
  }
  return dots;
}

/// Outputs 4 * half..4 * half + 3 of a row.
VILA_INLINE float32x4_t block_part(const BlockF& dots, int row, int half) { return dots.v[2 * row + half]; }

}  // namespace vila::kernels::VILA_ISA_NS

#include "kernels/simd/block_neon.h"
