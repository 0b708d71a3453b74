// The 16-lane vector contract (vec16.h) on AArch64 NEON: four registers of four lanes. The integer dot product comes
// from dot_mull.h (plain NEON) or dot_sdot.h (dotprod), included after this file.
#pragma once

#include <cstdint>

#include <arm_neon.h>

// One operation per line.
// clang-format off
namespace vila::kernels::VILA_ISA_NS {

struct F32x16 {
  float32x4_t v[4];
};
struct I32x16 {
  int32x4_t v[4];
};
/// 16 rows x 8 columns of nibbles.
struct W4 {
  uint8x16_t v[4];
};
/// 16 rows x 4 columns of bytes.
struct W8 {
  int8x16_t v[4];
};

// Unrolled before anything else, or the compiler keeps vectors in memory.
#define VILA_FOUR _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i)
#define VILA_EACH(expression)   \
  VILA_FOUR {                   \
    r.v[i] = (expression);      \
  }                             \
  return r

inline F32x16 splat(float x) { F32x16 r; VILA_EACH(vdupq_n_f32(x)); }
inline F32x16 zero_f32() { return splat(0.0F); }
inline F32x16 load(const float* p) { F32x16 r; VILA_EACH(vld1q_f32(p + 4 * i)); }
inline void store(float* p, F32x16 a) {
  VILA_FOUR vst1q_f32(p + 4 * i, a.v[i]);
}
inline F32x16 load_partial(const float* p, int n) {
  alignas(16) float lanes[16] = {};
  for (int i = 0; i < n; ++i) lanes[i] = p[i];
  return load(lanes);
}
inline void store_partial(float* p, F32x16 a, int n) {
  alignas(16) float lanes[16];
  store(lanes, a);
  for (int i = 0; i < n; ++i) p[i] = lanes[i];
}
inline F32x16 load_f16(const std::uint16_t* p) {
  F32x16 r;
  VILA_EACH(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))));
}
inline void store_f16(std::uint16_t* p, F32x16 a) {
  VILA_FOUR vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(a.v[i])));
}
inline F32x16 add(F32x16 a, F32x16 b) { F32x16 r; VILA_EACH(vaddq_f32(a.v[i], b.v[i])); }
inline F32x16 sub(F32x16 a, F32x16 b) { F32x16 r; VILA_EACH(vsubq_f32(a.v[i], b.v[i])); }
inline F32x16 mul(F32x16 a, F32x16 b) { F32x16 r; VILA_EACH(vmulq_f32(a.v[i], b.v[i])); }
inline F32x16 div(F32x16 a, F32x16 b) { F32x16 r; VILA_EACH(vdivq_f32(a.v[i], b.v[i])); }
// vminq and vmaxq hand a NaN on; the contract wants the second operand, as x86 has it.
inline F32x16 min(F32x16 a, F32x16 b) { F32x16 r; VILA_EACH(vbslq_f32(vcltq_f32(a.v[i], b.v[i]), a.v[i], b.v[i])); }
inline F32x16 max(F32x16 a, F32x16 b) { F32x16 r; VILA_EACH(vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), a.v[i], b.v[i])); }
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { F32x16 r; VILA_EACH(vfmaq_f32(c.v[i], a.v[i], b.v[i])); }
inline F32x16 fnma(F32x16 a, F32x16 b, F32x16 c) { F32x16 r; VILA_EACH(vfmsq_f32(c.v[i], a.v[i], b.v[i])); }
inline F32x16 sqrt(F32x16 a) { F32x16 r; VILA_EACH(vsqrtq_f32(a.v[i])); }
inline F32x16 neg(F32x16 a) { F32x16 r; VILA_EACH(vnegq_f32(a.v[i])); }
inline F32x16 abs(F32x16 a) { F32x16 r; VILA_EACH(vabsq_f32(a.v[i])); }
inline F32x16 round_even(F32x16 a) { F32x16 r; VILA_EACH(vrndnq_f32(a.v[i])); }
inline F32x16 select_lt(F32x16 a, F32x16 b, F32x16 x, F32x16 y) {
  F32x16 r;
  VILA_EACH(vbslq_f32(vcltq_f32(a.v[i], b.v[i]), x.v[i], y.v[i]));
}

inline I32x16 splat_i32(std::int32_t x) { I32x16 r; VILA_EACH(vdupq_n_s32(x)); }
inline I32x16 zero_i32() { return splat_i32(0); }
inline I32x16 add(I32x16 a, I32x16 b) { I32x16 r; VILA_EACH(vaddq_s32(a.v[i], b.v[i])); }
inline F32x16 to_f32(I32x16 a) { F32x16 r; VILA_EACH(vcvtq_f32_s32(a.v[i])); }
inline I32x16 round_to_i32(F32x16 a) { I32x16 r; VILA_EACH(vcvtnq_s32_f32(a.v[i])); }
inline I32x16 load_u8(const std::uint8_t* p) {
  const uint8x16_t bytes = vld1q_u8(p);
  const uint16x8_t low = vmovl_u8(vget_low_u8(bytes));
  const uint16x8_t high = vmovl_u8(vget_high_u8(bytes));
  return {{vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low))), vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(low))),
           vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high))), vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(high)))}};
}
inline I32x16 load_s8(const std::int8_t* p) {
  const int8x16_t bytes = vld1q_s8(p);
  const int16x8_t low = vmovl_s8(vget_low_s8(bytes));
  const int16x8_t high = vmovl_s8(vget_high_s8(bytes));
  return {{vmovl_s16(vget_low_s16(low)), vmovl_s16(vget_high_s16(low)), vmovl_s16(vget_low_s16(high)),
           vmovl_s16(vget_high_s16(high))}};
}
inline void store_s8(std::int8_t* p, I32x16 a) {
  const int16x8_t low = vcombine_s16(vmovn_s32(a.v[0]), vmovn_s32(a.v[1]));
  const int16x8_t high = vcombine_s16(vmovn_s32(a.v[2]), vmovn_s32(a.v[3]));
  vst1q_s8(p, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
}

inline void store_s16(std::int16_t* p, I32x16 a) {
  VILA_FOUR vst1_s16(p + 4 * i, vmovn_s32(a.v[i]));
}
/// 16 lanes of two int16, the first and the second ones of eight lanes apart.
struct Pairs {
  int16x8_t first[2], second[2];
};
using Pair = int16x4_t;
inline Pairs load_pairs(const std::int16_t* p) {  // not with ld2, whose results GCC moves through memory
  const int16x8_t a = vld1q_s16(p), b = vld1q_s16(p + 8), c = vld1q_s16(p + 16), d = vld1q_s16(p + 24);
  return {{vuzp1q_s16(a, b), vuzp1q_s16(c, d)}, {vuzp2q_s16(a, b), vuzp2q_s16(c, d)}};
}
inline Pair load_pair(const std::int16_t* p) {
  std::int32_t pair;
  __builtin_memcpy(&pair, p, sizeof pair);
  return vreinterpret_s16_s32(vdup_n_s32(pair));
}
inline I32x16 dot2_s16(I32x16 acc, Pairs a, Pair b) {
  VILA_FOUR {
    if (i % 2 == 0) {
      acc.v[i] = vmlal_lane_s16(acc.v[i], vget_low_s16(a.first[i / 2]), b, 0);
      acc.v[i] = vmlal_lane_s16(acc.v[i], vget_low_s16(a.second[i / 2]), b, 1);
    } else {
      acc.v[i] = vmlal_high_lane_s16(acc.v[i], a.first[i / 2], b, 0);
      acc.v[i] = vmlal_high_lane_s16(acc.v[i], a.second[i / 2], b, 1);
    }
  }
  return acc;
}

// Lanes i and i + 8, then i + 4, i + 2, i + 1.
inline float reduce_add(F32x16 a) {
  const float32x4_t four = vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]));
  const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
inline float reduce_max(F32x16 a) {
  const auto greater = [](float32x4_t x, float32x4_t y) { return vbslq_f32(vcgtq_f32(x, y), x, y); };
  const float32x4_t four = greater(greater(a.v[0], a.v[2]), greater(a.v[1], a.v[3]));
  const float32x2_t low = vget_low_f32(four);
  const float32x2_t high = vget_high_f32(four);
  const float32x2_t two = vbsl_f32(vcgt_f32(low, high), low, high);
  const float x = vget_lane_f32(two, 0);
  const float y = vget_lane_f32(two, 1);
  return x > y ? x : y;
}

inline W4 load_w4(const std::uint8_t* p) { W4 r; VILA_EACH(vld1q_u8(p + 16 * i)); }
inline W8 load_w8(const std::uint8_t* p) { W8 r; VILA_EACH(vreinterpretq_s8_u8(vld1q_u8(p + 16 * i))); }
inline W8 low_nibbles(W4 w) { W8 r; VILA_EACH(vreinterpretq_s8_u8(vandq_u8(w.v[i], vdupq_n_u8(15)))); }
inline W8 high_nibbles(W4 w) { W8 r; VILA_EACH(vreinterpretq_s8_u8(vshrq_n_u8(w.v[i], 4))); }
inline void store_w8(std::uint8_t* p, W8 w) {
  VILA_FOUR vst1q_u8(p + 16 * i, vreinterpretq_u8_s8(w.v[i]));
}
inline W8 reload_w8(const std::uint8_t* p) { W8 r; VILA_EACH(vreinterpretq_s8_u8(vld1q_u8(p + 16 * i))); }
// Left to the compiler, a function that only prefetches counts as one without effect, and its calls are dropped.
[[gnu::always_inline]] inline void prefetch(const void* p) { __builtin_prefetch(p); }
[[gnu::always_inline]] inline void prefetch_l2(const void* p) { __builtin_prefetch(p, 0, 2); }

// 2^n in two exact steps, so that n may exceed the range of one float's exponent.
inline F32x16 scale_exp2(F32x16 a, F32x16 whole) {
  const I32x16 n = round_to_i32(whole);
  F32x16 r;
  VILA_FOUR {
    const int32x4_t half = vshrq_n_s32(n.v[i], 1);
    const int32x4_t rest = vsubq_s32(n.v[i], half);
    const auto power = [](int32x4_t e) { return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(e, vdupq_n_s32(127)), 23)); };
    r.v[i] = vmulq_f32(vmulq_f32(a.v[i], power(half)), power(rest));
  }
  return r;
}

// What avx2.h must ask for, the compiler does here by itself.
template <class T>
inline void hold_in_registers(T&) {}
inline void hold_beside_sums(F32x16&) {}

inline constexpr int kFloatRows = 4;   // 16 accumulators of 32 registers
inline constexpr int kFloatTiles = 1;
inline constexpr int kDotRows = 4;
inline constexpr int kDotTiles = 1;
inline constexpr std::int64_t kPanelColumns = 512;

}  // namespace vila::kernels::VILA_ISA_NS
