// The integer dot product with AVX2: vpmaddubsw and vpmaddwd; see dot_maddubs512.h for the bounds.
#pragma once

// One operation per line.
// clang-format off
namespace vila::kernels::VILA_ISA_NS {

/// 16 rows x 2 pairs of columns as 16-bit sums.
struct S4 {
  __m256i v[2];
};
inline S4 zero_s4() { S4 r; VILA_EACH(_mm256_setzero_si256()); }
inline S4 dot4_u(S4 acc, W8 w, A4 a) { S4 r; VILA_EACH(_mm256_add_epi16(acc.v[i], _mm256_maddubs_epi16(w.v[i], a))); }
inline I32x16 widen(S4 sum) { I32x16 r; VILA_EACH(_mm256_madd_epi16(sum.v[i], _mm256_set1_epi16(1))); }

inline constexpr std::int32_t kW8Bias = 0;
inline W8 load_w8(const std::uint8_t* p) { W8 r; VILA_EACH(_mm256_loadu_si256(as_m256i(p + 32 * i))); }
// |w| is unsigned; the sign of w moves to a.
inline I32x16 dot4_s(I32x16 acc, W8 w, A4 a) {
  I32x16 r;
  VILA_EACH(_mm256_add_epi32(acc.v[i], _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(w.v[i]), _mm256_sign_epi8(a, w.v[i])),
                                                         _mm256_set1_epi16(1))));
}

}  // namespace vila::kernels::VILA_ISA_NS
