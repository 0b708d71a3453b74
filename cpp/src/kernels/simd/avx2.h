// The 16-lane vector contract (vec16.h) on AVX2, FMA and F16C: two registers of eight lanes. The integer dot product
// comes from dot_maddubs.h or dot_vnni.h, included after this file.
#pragma once

#include <cstdint>

#include <immintrin.h>

// One operation per line.
// clang-format off
namespace vila::kernels::VILA_ISA_NS {

struct F32x16 {
  __m256 v[2];
};
struct I32x16 {
  __m256i v[2];
};
/// 16 rows x 8 columns of nibbles.
struct W4 {
  __m256i v[2];
};
/// 16 rows x 4 columns of bytes.
struct W8 {
  __m256i v[2];
};

inline const __m256i* as_m256i(const void* p) { return static_cast<const __m256i*>(p); }

inline F32x16 splat(float x) { return {{_mm256_set1_ps(x), _mm256_set1_ps(x)}}; }
inline F32x16 zero_f32() { return {{_mm256_setzero_ps(), _mm256_setzero_ps()}}; }
inline F32x16 load(const float* p) { return {{_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}}; }
inline void store(float* p, F32x16 a) {
  _mm256_storeu_ps(p, a.v[0]);
  _mm256_storeu_ps(p + 8, a.v[1]);
}
inline F32x16 load_partial(const float* p, int n) {
  alignas(32) float lanes[16] = {};
  for (int i = 0; i < n; ++i) lanes[i] = p[i];
  return load(lanes);
}
inline void store_partial(float* p, F32x16 a, int n) {
  alignas(32) float lanes[16];
  store(lanes, a);
  for (int i = 0; i < n; ++i) p[i] = lanes[i];
}
inline F32x16 load_f16(const std::uint16_t* p) {
  return {{_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
           _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))}};
}
inline void store_f16(std::uint16_t* p, F32x16 a) {
  constexpr int kRound = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a.v[0], kRound));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(a.v[1], kRound));
}

#define VILA_EACH(expression)             \
  for (int i = 0; i < 2; ++i) {           \
    r.v[i] = (expression);                \
  }                                       \
  return r

inline F32x16 add(F32x16 a, F32x16 b) { F32x16 r; VILA_EACH(_mm256_add_ps(a.v[i], b.v[i])); }
inline F32x16 sub(F32x16 a, F32x16 b) { F32x16 r; VILA_EACH(_mm256_sub_ps(a.v[i], b.v[i])); }
inline F32x16 mul(F32x16 a, F32x16 b) { F32x16 r; VILA_EACH(_mm256_mul_ps(a.v[i], b.v[i])); }
inline F32x16 div(F32x16 a, F32x16 b) { F32x16 r; VILA_EACH(_mm256_div_ps(a.v[i], b.v[i])); }
inline F32x16 min(F32x16 a, F32x16 b) { F32x16 r; VILA_EACH(_mm256_min_ps(a.v[i], b.v[i])); }
inline F32x16 max(F32x16 a, F32x16 b) { F32x16 r; VILA_EACH(_mm256_max_ps(a.v[i], b.v[i])); }
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { F32x16 r; VILA_EACH(_mm256_fmadd_ps(a.v[i], b.v[i], c.v[i])); }
inline F32x16 fnma(F32x16 a, F32x16 b, F32x16 c) { F32x16 r; VILA_EACH(_mm256_fnmadd_ps(a.v[i], b.v[i], c.v[i])); }
inline F32x16 sqrt(F32x16 a) { F32x16 r; VILA_EACH(_mm256_sqrt_ps(a.v[i])); }
inline F32x16 neg(F32x16 a) { F32x16 r; VILA_EACH(_mm256_xor_ps(a.v[i], _mm256_set1_ps(-0.0F))); }
inline F32x16 abs(F32x16 a) { F32x16 r; VILA_EACH(_mm256_andnot_ps(_mm256_set1_ps(-0.0F), a.v[i])); }
inline F32x16 round_even(F32x16 a) {
  F32x16 r;
  VILA_EACH(_mm256_round_ps(a.v[i], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline F32x16 select_lt(F32x16 a, F32x16 b, F32x16 x, F32x16 y) {
  F32x16 r;
  VILA_EACH(_mm256_blendv_ps(y.v[i], x.v[i], _mm256_cmp_ps(a.v[i], b.v[i], _CMP_LT_OQ)));
}

inline I32x16 splat_i32(std::int32_t x) { I32x16 r; VILA_EACH(_mm256_set1_epi32(x)); }
inline I32x16 zero_i32() { I32x16 r; VILA_EACH(_mm256_setzero_si256()); }
inline I32x16 add(I32x16 a, I32x16 b) { I32x16 r; VILA_EACH(_mm256_add_epi32(a.v[i], b.v[i])); }
inline F32x16 to_f32(I32x16 a) { F32x16 r; VILA_EACH(_mm256_cvtepi32_ps(a.v[i])); }
inline I32x16 round_to_i32(F32x16 a) { I32x16 r; VILA_EACH(_mm256_cvtps_epi32(a.v[i])); }
inline I32x16 load_u8(const std::uint8_t* p) {
  I32x16 r;
  VILA_EACH(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8 * i))));
}
inline I32x16 load_s8(const std::int8_t* p) {
  I32x16 r;
  VILA_EACH(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8 * i))));
}
inline void store_s8(std::int8_t* p, I32x16 a) {
  const __m256i words = _mm256_packs_epi32(a.v[0], a.v[1]);  // per 128-bit half: low four of each
  const __m256i ordered = _mm256_permute4x64_epi64(words, 0xd8);
  const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
}
inline void store_s16(std::int16_t* p, I32x16 a) {
  const __m256i words = _mm256_packs_epi32(a.v[0], a.v[1]);  // per 128-bit half: four of each
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(words, 0xd8));
}
/// 16 lanes of two int16.
struct Pairs {
  __m256i v[2];
};
using Pair = __m256i;
inline Pairs load_pairs(const std::int16_t* p) { Pairs r; VILA_EACH(_mm256_loadu_si256(as_m256i(p + 16 * i))); }
inline Pair load_pair(const std::int16_t* p) {
  std::int32_t pair;
  __builtin_memcpy(&pair, p, sizeof pair);
  return _mm256_set1_epi32(pair);
}
// 2^n in two exact steps, so that n may exceed the range of one float's exponent.
inline F32x16 scale_exp2(F32x16 a, F32x16 whole) {
  const I32x16 n = round_to_i32(whole);
  F32x16 r;
  const __m256i bias = _mm256_set1_epi32(127);
  for (int i = 0; i < 2; ++i) {
    const __m256i half = _mm256_srai_epi32(n.v[i], 1);
    const __m256i rest = _mm256_sub_epi32(n.v[i], half);
    const __m256 first = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    const __m256 second = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
    r.v[i] = _mm256_mul_ps(_mm256_mul_ps(a.v[i], first), second);
  }
  return r;
}

// Lanes i and i + 8, then i + 4, i + 2, i + 1.
inline float reduce_add(F32x16 a) {
  const __m256 eight = _mm256_add_ps(a.v[0], a.v[1]);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float reduce_max(F32x16 a) {
  const __m256 eight = _mm256_max_ps(a.v[0], a.v[1]);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

inline W4 load_w4(const std::uint8_t* p) { W4 r; VILA_EACH(_mm256_loadu_si256(as_m256i(p + 32 * i))); }
inline W8 low_nibbles(W4 w) { W8 r; VILA_EACH(_mm256_and_si256(w.v[i], _mm256_set1_epi8(15))); }
inline W8 high_nibbles(W4 w) {
  W8 r;
  VILA_EACH(_mm256_and_si256(_mm256_srli_epi16(w.v[i], 4), _mm256_set1_epi8(15)));
}
inline void store_w8(std::uint8_t* p, W8 w) {
  for (int i = 0; i < 2; ++i) _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 32 * i), w.v[i]);
}
inline W8 reload_w8(const std::uint8_t* p) { W8 r; VILA_EACH(_mm256_loadu_si256(as_m256i(p + 32 * i))); }
// Left to the compiler, a function that only prefetches counts as one without effect, and its calls are dropped.
[[gnu::always_inline]] inline void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
[[gnu::always_inline]] inline void prefetch_l2(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }

using A4 = __m256i;
inline A4 load_a4(const std::int8_t* p) {
  std::int32_t quad;
  __builtin_memcpy(&quad, p, sizeof quad);
  return _mm256_set1_epi32(quad);
}

// Empty statements that stand for a use. Without them GCC does all products of an unrolled loop before the first sum, and
// keeps scaled dots in the registers that the sums, the weights and a product of a block need.
template <class T>
inline void hold_in_registers(T& sum) { asm("" : "+x"(sum.v[0]), "+x"(sum.v[1])); }
inline void hold_beside_sums(F32x16& dots) { asm("" : "+m"(dots)); }

// 8 accumulators, 2 weight vectors and temporaries fill the 16 registers.
inline constexpr int kFloatRows = 4;
inline constexpr int kFloatTiles = 1;
inline constexpr int kDotRows = 4;
inline constexpr int kDotTiles = 1;
inline constexpr std::int64_t kPanelColumns = 512;

}  // namespace vila::kernels::VILA_ISA_NS
