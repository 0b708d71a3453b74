// Register blocks of 4 rows x 8 outputs with the i8mm extension; see block_neon.h. smmla multiplies 2 rows x 8 columns
// by 2 outputs x 8 columns: 32 multiply-adds an instruction, twice sdot's.
#pragma once

#include "kernels/simd/block_step.h"

namespace vila::kernels::VILA_ISA_NS {

// v[4 * pair + j]: rows 2 * pair and 2 * pair + 1, outputs 2 * j and 2 * j + 1, as [row 0: 2 outputs, row 1: 2
// outputs].
struct Block {
  int32x4_t v[8];
};
struct BlockF {
  float32x4_t v[8];
};

/// Two outputs' quads of columns k..k+3 and k+4..k+7 from vectors of four outputs: outputs 0, 1 and 2, 3 with 8 columns
/// each.
VILA_INLINE int8x16_t pair_low(int8x16_t first, int8x16_t second) {
  return vreinterpretq_s8_s32(vzip1q_s32(vreinterpretq_s32_s8(first), vreinterpretq_s32_s8(second)));
}
VILA_INLINE int8x16_t pair_high(int8x16_t first, int8x16_t second) {
  return vreinterpretq_s8_s32(vzip2q_s32(vreinterpretq_s32_s8(first), vreinterpretq_s32_s8(second)));
}

/// Eight columns of 16 outputs (4 + 4) to the panels of outputs 0..7 and 8..15: [columns / 8][8][8].
VILA_INLINE void store_block_w(std::uint8_t*& low, std::uint8_t*& high, W8 first, W8 second) {
  store_step(low, {{pair_low(first.v[0], second.v[0]), pair_high(first.v[0], second.v[0]),
                    pair_low(first.v[1], second.v[1]), pair_high(first.v[1], second.v[1])}});
  store_step(high, {{pair_low(first.v[2], second.v[2]), pair_high(first.v[2], second.v[2]),
                     pair_low(first.v[3], second.v[3]), pair_high(first.v[3], second.v[3])}});
}

VILA_INLINE int8x16_t rows_low(int8x16_t a, int8x16_t b) {
  return vreinterpretq_s8_s64(vzip1q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}
VILA_INLINE int8x16_t rows_high(int8x16_t a, int8x16_t b) {
  return vreinterpretq_s8_s64(vzip2q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}

/// Sixteen columns of four rows: [columns / 8][4][8].
VILA_INLINE void store_block_a(std::int8_t* p, int8x16_t r0, int8x16_t r1, int8x16_t r2, int8x16_t r3) {
  vst1q_s8(p, rows_low(r0, r1));
  vst1q_s8(p + 16, rows_low(r2, r3));
  vst1q_s8(p + 32, rows_high(r0, r1));
  vst1q_s8(p + 48, rows_high(r2, r3));
}

/// The scales of four rows in four parts, every one twice: [part][row].
inline constexpr int kScaleFloats = 8;
using BlockScales = const float*;
VILA_INLINE BlockScales load_block_scales(const float* p) { return p; }
VILA_INLINE void store_block_scales(float* p, float32x4_t r0, float32x4_t r1, float32x4_t r2, float32x4_t r3) {
  const auto pair = [](float32x4_t a, float32x4_t b, float* to) {
    const float64x2_t a_low = vreinterpretq_f64_f32(vzip1q_f32(a, a));
    const float64x2_t a_high = vreinterpretq_f64_f32(vzip2q_f32(a, a));
    const float64x2_t b_low = vreinterpretq_f64_f32(vzip1q_f32(b, b));
    const float64x2_t b_high = vreinterpretq_f64_f32(vzip2q_f32(b, b));
    vst1q_f32(to, vreinterpretq_f32_f64(vzip1q_f64(a_low, b_low)));
    vst1q_f32(to + 8, vreinterpretq_f32_f64(vzip2q_f64(a_low, b_low)));
    vst1q_f32(to + 16, vreinterpretq_f32_f64(vzip1q_f64(a_high, b_high)));
    vst1q_f32(to + 24, vreinterpretq_f32_f64(vzip2q_f64(a_high, b_high)));
  };
  pair(r0, r1, p);
  pair(r2, r3, p + 4);
}

VILA_INLINE void block_octet(Block& sum, const int8x16x4_t& w, int8x16_t rows01, int8x16_t rows23) {
  sum.v[0] = vmmlaq_s32(sum.v[0], rows01, w.val[0]);
  sum.v[1] = vmmlaq_s32(sum.v[1], rows01, w.val[1]);
  sum.v[2] = vmmlaq_s32(sum.v[2], rows01, w.val[2]);
  sum.v[3] = vmmlaq_s32(sum.v[3], rows01, w.val[3]);
  sum.v[4] = vmmlaq_s32(sum.v[4], rows23, w.val[0]);
  sum.v[5] = vmmlaq_s32(sum.v[5], rows23, w.val[1]);
  sum.v[6] = vmmlaq_s32(sum.v[6], rows23, w.val[2]);
  sum.v[7] = vmmlaq_s32(sum.v[7], rows23, w.val[3]);
}

/// Sixteen columns: 128 bytes of a weight panel, 64 of packed activations; both pointers move on.
VILA_INLINE void block_dot(Block& sum, const std::uint8_t*& w, const std::int8_t*& a) {
  const int8x16x4_t rows = load_step(a);
  block_octet(sum, load_step(w), rows.val[0], rows.val[1]);
  block_octet(sum, load_step(w), rows.val[2], rows.val[3]);
}

/// dots = fma(sum, the row's scale in the part, dots), dots being 0 in the first part.
template <int kPart>
VILA_INLINE void block_scale(BlockF& dots, const Block& sum, BlockScales scales) {
  const float32x4_t rows[2] = {vld1q_f32(scales + 8 * kPart), vld1q_f32(scales + 8 * kPart + 4)};
  VILA_UNROLL for (int i = 0; i < 8; ++i) {
    const float32x4_t f = vcvtq_f32_s32(sum.v[i]);
    dots.v[i] = kPart == 0 ? vmulq_f32(f, rows[i / 4]) : vfmaq_f32(dots.v[i], f, rows[i / 4]);
  }
}

/// Outputs 4 * half..4 * half + 3 of a row.
template <int kRow, int kHalf>
VILA_INLINE float32x4_t block_part(const BlockF& dots) {
  const float64x2_t first = vreinterpretq_f64_f32(dots.v[4 * (kRow / 2) + 2 * kHalf]);
  const float64x2_t second = vreinterpretq_f64_f32(dots.v[4 * (kRow / 2) + 2 * kHalf + 1]);
  return vreinterpretq_f32_f64(kRow % 2 == 0 ? vzip1q_f64(first, second) : vzip2q_f64(first, second));
}

}  // namespace vila::kernels::VILA_ISA_NS

#include "kernels/simd/block_neon.h"
