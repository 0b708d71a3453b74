// The integer dot product with AVX-512-VNNI: vpdpbusd takes unsigned weights and signed activations. Signed weights are
// shifted by 128 into the unsigned range when they are loaded; kW8Bias tells the kernel what to take back.
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
  return {_mm512_xor_si512(_mm512_loadu_si512(p), _mm512_set1_epi8(-128))};
}
inline I32x16 dot4_u(I32x16 acc, W8 w, A4 a) { return {_mm512_dpbusd_epi32(acc.v, w.v, a)}; }
inline I32x16 dot4_s(I32x16 acc, W8 w, A4 a) { return dot4_u(acc, w, a); }
inline I32x16 dot2_s16(I32x16 acc, Pairs a, Pair b) { return {_mm512_dpwssd_epi32(acc.v, a.v, b)}; }
template <class T>
inline void hold_in_registers(T&) {}  // sum and product are one instruction

}  // namespace vila::kernels::VILA_ISA_NS

#include "kernels/simd/panel_bytes.h"
