// The 16-lane vector contract (vec16.h) as arrays and plain loops: the definition that the other files must equal, and
// the fallback for every CPU.
#pragma once

#include <bit>
#include <cstdint>

#include "base/half.h"

// One operation per line.
// clang-format off
namespace vila::kernels::VILA_ISA_NS {

struct F32x16 {
  float v[16];
};
struct I32x16 {
  std::int32_t v[16];
};
struct W4 {
  const std::uint8_t* p;
};
struct W8 {
  std::int8_t v[64];
};

#define VILA_EACH(expression)              \
  for (int i = 0; i < 16; ++i) {           \
    r.v[i] = (expression);                 \
  }                                        \
  return r

inline F32x16 splat(float x) { F32x16 r; VILA_EACH(x); }
inline F32x16 zero_f32() { return splat(0.0F); }
inline F32x16 load(const float* p) { F32x16 r; VILA_EACH(p[i]); }
inline void store(float* p, F32x16 a) {
  for (int i = 0; i < 16; ++i) p[i] = a.v[i];
}
inline F32x16 load_partial(const float* p, int n) { F32x16 r; VILA_EACH(i < n ? p[i] : 0.0F); }
inline void store_partial(float* p, F32x16 a, int n) {
  for (int i = 0; i < n; ++i) p[i] = a.v[i];
}
inline F32x16 load_f16(const std::uint16_t* p) { F32x16 r; VILA_EACH(f16_to_f32(p[i])); }
inline void store_f16(std::uint16_t* p, F32x16 a) {
  for (int i = 0; i < 16; ++i) p[i] = f32_to_f16(a.v[i]);
}
inline F32x16 add(F32x16 a, F32x16 b) { F32x16 r; VILA_EACH(a.v[i] + b.v[i]); }
inline F32x16 sub(F32x16 a, F32x16 b) { F32x16 r; VILA_EACH(a.v[i] - b.v[i]); }
inline F32x16 mul(F32x16 a, F32x16 b) { F32x16 r; VILA_EACH(a.v[i] * b.v[i]); }
inline F32x16 div(F32x16 a, F32x16 b) { F32x16 r; VILA_EACH(a.v[i] / b.v[i]); }
inline F32x16 min(F32x16 a, F32x16 b) { F32x16 r; VILA_EACH(a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
inline F32x16 max(F32x16 a, F32x16 b) { F32x16 r; VILA_EACH(a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { F32x16 r; VILA_EACH(__builtin_fmaf(a.v[i], b.v[i], c.v[i])); }
inline F32x16 fnma(F32x16 a, F32x16 b, F32x16 c) { F32x16 r; VILA_EACH(__builtin_fmaf(-a.v[i], b.v[i], c.v[i])); }
inline F32x16 sqrt(F32x16 a) { F32x16 r; VILA_EACH(__builtin_sqrtf(a.v[i])); }
inline F32x16 neg(F32x16 a) { F32x16 r; VILA_EACH(-a.v[i]); }
inline F32x16 abs(F32x16 a) { F32x16 r; VILA_EACH(__builtin_fabsf(a.v[i])); }
inline F32x16 round_even(F32x16 a) { F32x16 r; VILA_EACH(__builtin_rintf(a.v[i])); }
inline F32x16 select_lt(F32x16 a, F32x16 b, F32x16 x, F32x16 y) { F32x16 r; VILA_EACH(a.v[i] < b.v[i] ? x.v[i] : y.v[i]); }

inline I32x16 splat_i32(std::int32_t x) { I32x16 r; VILA_EACH(x); }
inline I32x16 zero_i32() { return splat_i32(0); }
inline I32x16 add(I32x16 a, I32x16 b) { I32x16 r; VILA_EACH(a.v[i] + b.v[i]); }
inline F32x16 to_f32(I32x16 a) { F32x16 r; VILA_EACH(static_cast<float>(a.v[i])); }
inline I32x16 round_to_i32(F32x16 a) { I32x16 r; VILA_EACH(static_cast<std::int32_t>(__builtin_rintf(a.v[i]))); }
inline I32x16 load_u8(const std::uint8_t* p) { I32x16 r; VILA_EACH(p[i]); }
inline I32x16 load_s8(const std::int8_t* p) { I32x16 r; VILA_EACH(p[i]); }
inline void store_s8(std::int8_t* p, I32x16 a) {
  for (int i = 0; i < 16; ++i) p[i] = static_cast<std::int8_t>(a.v[i]);
}
inline void store_s16(std::int16_t* p, I32x16 a) {
  for (int i = 0; i < 16; ++i) p[i] = static_cast<std::int16_t>(a.v[i]);
}
using Pairs = const std::int16_t*;
using Pair = const std::int16_t*;
inline Pairs load_pairs(const std::int16_t* p) { return p; }
inline Pair load_pair(const std::int16_t* p) { return p; }
inline I32x16 dot2_s16(I32x16 acc, Pairs a, Pair b) { I32x16 r; VILA_EACH(acc.v[i] + a[2 * i] * b[0] + a[2 * i + 1] * b[1]); }
// 2^n is applied in two exact steps, so that n may exceed the range of one float's exponent.
inline F32x16 scale_exp2(F32x16 a, F32x16 whole) {
  const I32x16 n = round_to_i32(whole);
  F32x16 r;
  for (int i = 0; i < 16; ++i) {
    const std::int32_t half = n.v[i] >> 1;
    const std::int32_t rest = n.v[i] - half;
    r.v[i] = a.v[i] * std::bit_cast<float>((half + 127) << 23) * std::bit_cast<float>((rest + 127) << 23);
  }
  return r;
}

// Lanes i and i + 8, then i + 4, i + 2, i + 1.
inline float reduce_add(F32x16 a) {
  for (int step = 8; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) a.v[i] = a.v[i] + a.v[i + step];
  }
  return a.v[0];
}
inline float reduce_max(F32x16 a) {
  for (int step = 8; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) a.v[i] = a.v[i] > a.v[i + step] ? a.v[i] : a.v[i + step];
  }
  return a.v[0];
}

inline W4 load_w4(const std::uint8_t* p) { return {p}; }
inline W8 load_w8(const std::uint8_t* p) {
  W8 r;
  for (int i = 0; i < 64; ++i) r.v[i] = static_cast<std::int8_t>(p[i]);
  return r;
}
inline W8 low_nibbles(W4 w) {
  W8 r;
  for (int i = 0; i < 64; ++i) r.v[i] = static_cast<std::int8_t>(w.p[i] & 15);
  return r;
}
inline W8 high_nibbles(W4 w) {
  W8 r;
  for (int i = 0; i < 64; ++i) r.v[i] = static_cast<std::int8_t>(w.p[i] >> 4);
  return r;
}
inline void store_w8(std::uint8_t* p, W8 w) {
  for (int i = 0; i < 64; ++i) p[i] = static_cast<std::uint8_t>(w.v[i]);
}
inline W8 reload_w8(const std::uint8_t* p) { return load_w8(p); }
using S4 = I32x16;
inline S4 zero_s4() { return zero_i32(); }
inline I32x16 widen(S4 sum) { return sum; }
using A4 = const std::int8_t*;
inline A4 load_a4(const std::int8_t* p) { return p; }
inline constexpr std::int32_t kW8Bias = 0;
inline I32x16 dot4_s(I32x16 acc, W8 w, A4 a) {
  for (int i = 0; i < 16; ++i) {
    for (int c = 0; c < 4; ++c) acc.v[i] += w.v[4 * i + c] * a[c];
  }
  return acc;
}
inline I32x16 dot4_u(I32x16 acc, W8 w, A4 a) { return dot4_s(acc, w, a); }
inline void prefetch(const void*) {}
inline void prefetch_l2(const void*) {}

// What avx2.h must ask for, the compiler does here by itself.
template <class T>
inline void hold_in_registers(T&) {}
inline void hold_beside_sums(F32x16&) {}

inline constexpr int kFloatRows = 4;
inline constexpr int kFloatTiles = 1;
inline constexpr int kDotRows = 4;
inline constexpr int kDotTiles = 1;
inline constexpr std::int64_t kPanelColumns = 512;

#undef VILA_EACH

}  // namespace vila::kernels::VILA_ISA_NS

#include "kernels/simd/panel_bytes.h"
