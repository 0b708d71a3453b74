// The integer dot product with plain AVX-512: vpmaddubsw and vpmaddwd. Pairs of products stay within 16 bits: nibbles give
// at most 2 * 15 * 128, signed weights in -127..127 at most 2 * 127 * 127.
#pragma once

namespace vila::kernels::VILA_ISA_NS {

inline constexpr std::int32_t kW8Bias = 0;
inline W8 load_w8(const std::uint8_t* p) { return {_mm512_loadu_si512(p)}; }
inline I32x16 dot4_u(I32x16 acc, W8 w, A4 a) {
  const __m512i pairs = _mm512_maddubs_epi16(w.v, a);
  return {_mm512_add_epi32(acc.v, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))};
}
// |w| is unsigned; the sign of w moves to a.
inline I32x16 dot4_s(I32x16 acc, W8 w, A4 a) {
  const __mmask64 negative = _mm512_movepi8_mask(w.v);
  const __m512i signed_a = _mm512_mask_sub_epi8(a, negative, _mm512_setzero_si512(), a);
  return dot4_u(acc, {_mm512_abs_epi8(w.v)}, signed_a);
}

}  // namespace vila::kernels::VILA_ISA_NS
