// The integer dot product with AVX2: vpmaddubsw and vpmaddwd; see dot_maddubs512.h for the bounds. Panels of int8
// weights are widened to 16 bits, so that many rows share what the sign of each weight would cost for every row.
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
inline I32x16 dot2_s16(I32x16 acc, Pairs a, Pair b) {
  I32x16 r;
  VILA_EACH(_mm256_add_epi32(acc.v[i], _mm256_madd_epi16(a.v[i], b)));
}

/// int8 weights in a panel: two vectors of 16 rows x 2 columns of 16 bits for four columns, first columns 0 and 2, then
/// 1 and 3, which are two shifts and one. Activations go the same way.
struct PanelS8 {
  static constexpr std::int64_t kPanelBytes = 2;
  static __m256i even(__m256i bytes) { return _mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8); }
  static __m256i odd(__m256i bytes) { return _mm256_srai_epi16(bytes, 8); }
  template <std::int64_t kStride>
  static void unpack(const std::uint8_t* w, std::uint8_t* panel) {
    const W8 bytes = load_w8(w);
    store_w8(panel, {{even(bytes.v[0]), even(bytes.v[1])}});
    store_w8(panel + kStride, {{odd(bytes.v[0]), odd(bytes.v[1])}});
  }
  /// n activations, a multiple of 32, to 2 n bytes.
  static void widen(const std::int8_t* a, std::int64_t n, std::int8_t* wide) {
    for (std::int64_t k = 0; k < n; k += 32, wide += 64) {
      const __m256i bytes = _mm256_loadu_si256(as_m256i(a + k));
      const __m256i low = _mm256_unpacklo_epi32(even(bytes), odd(bytes));  // quads 0 1 | 4 5
      const __m256i high = _mm256_unpackhi_epi32(even(bytes), odd(bytes));  // quads 2 3 | 6 7
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(wide), _mm256_permute2x128_si256(low, high, 0x20));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(wide + 32), _mm256_permute2x128_si256(low, high, 0x31));
    }
  }
  static I32x16 panel_dot(I32x16 sum, W8 w, A4 a) { I32x16 r; VILA_EACH(_mm256_add_epi32(sum.v[i], _mm256_madd_epi16(w.v[i], a))); }
};

}  // namespace vila::kernels::VILA_ISA_NS
