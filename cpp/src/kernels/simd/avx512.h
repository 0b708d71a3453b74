// The 16-lane vector contract (vec16.h) on AVX-512: one register. The integer dot product comes from dot_vnni512.h or
// dot_maddubs512.h, included after this file.
#pragma once

#include <cstdint>

#include <immintrin.h>

// One operation per line.
// clang-format off
namespace vila::kernels::VILA_ISA_NS {

struct F32x16 {
  __m512 v;
};
struct I32x16 {
  __m512i v;
};
/// 16 rows x 8 columns of nibbles.
struct W4 {
  __m512i v;
};
/// 16 rows x 4 columns of bytes.
struct W8 {
  __m512i v;
};

inline __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1U << n) - 1U); }

inline F32x16 splat(float x) { return {_mm512_set1_ps(x)}; }
inline F32x16 zero_f32() { return {_mm512_setzero_ps()}; }
inline F32x16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, F32x16 a) { _mm512_storeu_ps(p, a.v); }
inline F32x16 load_partial(const float* p, int n) { return {_mm512_maskz_loadu_ps(first_lanes(n), p)}; }
inline void store_partial(float* p, F32x16 a, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), a.v); }
inline F32x16 load_f16(const std::uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline void store_f16(std::uint16_t* p, F32x16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline F32x16 add(F32x16 a, F32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F32x16 sub(F32x16 a, F32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F32x16 mul(F32x16 a, F32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F32x16 div(F32x16 a, F32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline F32x16 min(F32x16 a, F32x16 b) { return {_mm512_min_ps(a.v, b.v)}; }
inline F32x16 max(F32x16 a, F32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline F32x16 fnma(F32x16 a, F32x16 b, F32x16 c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
inline F32x16 sqrt(F32x16 a) { return {_mm512_sqrt_ps(a.v)}; }
inline F32x16 neg(F32x16 a) {
  return {_mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(a.v), _mm512_set1_epi32(INT32_MIN)))};
}
inline F32x16 abs(F32x16 a) { return {_mm512_abs_ps(a.v)}; }
inline F32x16 round_even(F32x16 a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline F32x16 select_lt(F32x16 a, F32x16 b, F32x16 x, F32x16 y) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), y.v, x.v)};
}

inline I32x16 splat_i32(std::int32_t x) { return {_mm512_set1_epi32(x)}; }
inline I32x16 zero_i32() { return {_mm512_setzero_si512()}; }
inline I32x16 add(I32x16 a, I32x16 b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline F32x16 to_f32(I32x16 a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline I32x16 round_to_i32(F32x16 a) { return {_mm512_cvtps_epi32(a.v)}; }
inline I32x16 load_u8(const std::uint8_t* p) {
  return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
inline I32x16 load_s8(const std::int8_t* p) {
  return {_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
inline void store_s8(std::int8_t* p, I32x16 a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v));
}
inline void store_s16(std::int16_t* p, I32x16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(a.v));
}
/// 16 lanes of two int16.
struct Pairs {
  __m512i v;
};
using Pair = __m512i;
inline Pairs load_pairs(const std::int16_t* p) { return {_mm512_loadu_si512(p)}; }
inline Pair load_pair(const std::int16_t* p) {
  std::int32_t pair;
  __builtin_memcpy(&pair, p, sizeof pair);
  return _mm512_set1_epi32(pair);
}
inline F32x16 scale_exp2(F32x16 a, F32x16 n) { return {_mm512_scalef_ps(a.v, n.v)}; }

// Lanes i and i + 8, then i + 4, i + 2, i + 1.
inline float reduce_add(F32x16 a) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float reduce_max(F32x16 a) {
  const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

inline W4 load_w4(const std::uint8_t* p) { return {_mm512_loadu_si512(p)}; }
inline W8 low_nibbles(W4 w) { return {_mm512_and_si512(w.v, _mm512_set1_epi8(15))}; }
inline W8 high_nibbles(W4 w) { return {_mm512_and_si512(_mm512_srli_epi16(w.v, 4), _mm512_set1_epi8(15))}; }
inline void store_w8(std::uint8_t* p, W8 w) { _mm512_storeu_si512(p, w.v); }
inline W8 reload_w8(const std::uint8_t* p) { return {_mm512_loadu_si512(p)}; }
// Left to the compiler, a function that only prefetches counts as one without effect, and its calls are dropped.
[[gnu::always_inline]] inline void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
[[gnu::always_inline]] inline void prefetch_l2(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }

using A4 = __m512i;
inline A4 load_a4(const std::int8_t* p) {
  std::int32_t quad;
  __builtin_memcpy(&quad, p, sizeof quad);
  return _mm512_set1_epi32(quad);
}

// 32 registers hold scaled dots and sums.
inline void hold_beside_sums(F32x16&) {}

// Floats: 24 accumulators, 4 weight vectors and a broadcast activation fill the 32 registers. Integers have sums, scaled
// dots and accumulators: of 5 x 2 each, all stay in registers. Larger blocks store 64 bytes for each, every 32 columns.
// Panels of 1280 columns are 160 KiB.
inline constexpr int kFloatRows = 6;
inline constexpr int kFloatTiles = 4;
inline constexpr int kDotRows = 5;
inline constexpr int kDotTiles = 2;
inline constexpr std::int64_t kPanelColumns = 1280;

}  // namespace vila::kernels::VILA_ISA_NS
