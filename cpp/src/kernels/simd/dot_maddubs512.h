// The integer dot product with plain AVX-512: vpmaddubsw and vpmaddwd. Pairs of products stay within 16 bits: nibbles
// give at most 2 * 15 * 128 = 3840, so that eight such pairs can be summed in 16 bits before they are widened; signed
// weights in -127..127 give at most 2 * 127 * 127.
#pragma once

// One operation per line.
// clang-format off
namespace vila::kernels::VILA_ISA_NS {

/// 16 rows x 2 pairs of columns as 16-bit sums.
struct S4 {
  __m512i v;
};
inline S4 zero_s4() { return {_mm512_setzero_si512()}; }
inline S4 dot4_u(S4 acc, W8 w, A4 a) { return {_mm512_add_epi16(acc.v, _mm512_maddubs_epi16(w.v, a))}; }
inline I32x16 widen(S4 sum) { return {_mm512_madd_epi16(sum.v, _mm512_set1_epi16(1))}; }

inline constexpr std::int32_t kW8Bias = 0;
inline W8 load_w8(const std::uint8_t* p) { return {_mm512_loadu_si512(p)}; }
// |w| is unsigned; the sign of w moves to a.
inline I32x16 dot4_s(I32x16 acc, W8 w, A4 a) {
  const __mmask64 negative = _mm512_movepi8_mask(w.v);
  const __m512i signed_a = _mm512_mask_sub_epi8(a, negative, _mm512_setzero_si512(), a);
  const __m512i pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(w.v), signed_a);
  return {_mm512_add_epi32(acc.v, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))};
}
inline I32x16 dot2_s16(I32x16 acc, Pairs a, Pair b) { return {_mm512_add_epi32(acc.v, _mm512_madd_epi16(a.v, b))}; }
// An empty statement that stands for a use, see avx2.h.
template <class T>
inline void hold_in_registers(T& sum) { asm("" : "+v"(sum.v)); }

}  // namespace vila::kernels::VILA_ISA_NS

#include "kernels/simd/panel_bytes.h"
