// The integer dot product with AVX-VNNI (256 bits); see dot_vnni512.h for the bias.
#pragma once

// One operation per line.
// clang-format off
namespace vila::kernels::VILA_ISA_NS {

// Sums of nibbles need no narrower form here.
using S4 = I32x16;
inline S4 zero_s4() { return zero_i32(); }
inline I32x16 widen(S4 sum) { return sum; }

inline constexpr std::int32_t kW8Bias = 128;
inline W8 load_w8(const std::uint8_t* p) {
  W8 r;
  VILA_EACH(_mm256_xor_si256(_mm256_loadu_si256(as_m256i(p + 32 * i)), _mm256_set1_epi8(-128)));
}
inline I32x16 dot4_u(I32x16 acc, W8 w, A4 a) {
  I32x16 r;
  VILA_EACH(_mm256_dpbusd_avx_epi32(acc.v[i], w.v[i], a));
}
inline I32x16 dot4_s(I32x16 acc, W8 w, A4 a) { return dot4_u(acc, w, a); }
inline I32x16 dot2_s16(I32x16 acc, Pairs a, Pair b) { I32x16 r; VILA_EACH(_mm256_dpwssd_avx_epi32(acc.v[i], a.v[i], b)); }

}  // namespace vila::kernels::VILA_ISA_NS

#include "kernels/simd/panel_bytes.h"
