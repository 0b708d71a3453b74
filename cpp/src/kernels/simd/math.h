// exp, tanh and erf on 16 floats, written once on the operations of vec16.h, so that every instruction set gives the
// same bits. The polynomials are minimax fits (Remez exchange) made for this file; NaN in gives NaN out.
#pragma once

namespace vila::kernels::VILA_ISA_NS {

inline constexpr float kLog2E = 0x1.715476p+0F;
inline constexpr float kLn2High = 0x1.62e430p-1F;   // ln 2 rounded to float
inline constexpr float kLn2Low = -0x1.05c610p-29F;  // ln 2 - kLn2High

// q with exp(r) = 1 + r + r^2 q(r), relative error 3.1e-9 for |r| <= ln(2) / 2.
inline F32x16 exp_remainder(F32x16 r) {
  F32x16 q = fma(splat(0x1.6a2250p-10F), r, splat(0x1.123b02p-7F));
  q = fma(q, r, splat(0x1.5558f8p-5F));
  q = fma(q, r, splat(0x1.555490p-3F));
  return fma(q, r, splat(0x1.fffffcp-2F));
}

// x - n ln 2 in two steps; the fused product makes the first one exact up to the rounding of its result.
inline F32x16 subtract_ln2_times(F32x16 x, F32x16 n) { return fnma(n, splat(kLn2Low), fnma(n, splat(kLn2High), x)); }

/// e^x within 1 ulp where the result is a normal number; exactly 0 below ln(2^-126), +inf above ln(FLT_MAX).
inline F32x16 exp(F32x16 x) {
  const F32x16 lowest = splat(-87.33654F);
  // The exponent comes from a clamped copy (NaN becomes the bound), the fraction from x itself so that NaN survives.
  const F32x16 clamped = min(max(x, lowest), splat(89.0F));
  const F32x16 n = round_even(mul(clamped, splat(kLog2E)));
  const F32x16 r = subtract_ln2_times(x, n);
  const F32x16 fraction = fma(fma(exp_remainder(r), r, splat(1.0F)), r, splat(1.0F));
  return select_lt(x, lowest, zero_f32(), scale_exp2(fraction, n));
}

/// tanh x = e / (e + 2) with e = e^(2x) - 1, which is formed without cancellation; within 3 ulp.
inline F32x16 tanh(F32x16 x) {
  const F32x16 bound = splat(20.0F);                        // tanh(10) rounds to 1
  const F32x16 y = min(bound, max(neg(bound), add(x, x)));  // in this order NaN survives
  const F32x16 n = round_even(mul(max(y, neg(bound)), splat(kLog2E)));
  const F32x16 r = subtract_ln2_times(y, n);
  const F32x16 fraction = fma(mul(r, r), exp_remainder(r), r);  // e^r - 1
  const F32x16 power = scale_exp2(splat(1.0F), n);
  const F32x16 e = fma(power, fraction, sub(power, splat(1.0F)));
  return div(e, add(e, splat(2.0F)));
}

/// erf x within 1.2e-7: an odd polynomial near 0, else 1 - exp(-t g(t)) with g(t) = -ln(erfc t) / t, t = |x| <= 4.
inline F32x16 erf(F32x16 x) {
  const F32x16 t = min(splat(4.0F), abs(x));  // erf(4) rounds to 1; in this order NaN survives
  const F32x16 s = mul(x, x);
  F32x16 near = fma(splat(-0x1.3bb75ap-11F), s, splat(0x1.47a766p-8F));
  near = fma(near, s, splat(-0x1.b69ee8p-6F));
  near = fma(near, s, splat(0x1.ce1be0p-4F));
  near = fma(near, s, splat(-0x1.8126eep-2F));
  near = mul(x, fma(near, s, splat(0x1.20dd74p+0F)));
  F32x16 g = fma(splat(-0x1.bfcf0ep-13F), t, splat(0x1.a4e9acp-9F));
  g = fma(g, t, splat(-0x1.76d7c0p-6F));
  g = fma(g, t, splat(0x1.af14fep-4F));
  g = fma(g, t, splat(0x1.457e88p-1F));
  g = fma(g, t, splat(0x1.20e614p+0F));
  const F32x16 far = sub(splat(1.0F), exp(neg(mul(t, g))));
  return select_lt(t, splat(0.92F), near, select_lt(x, zero_f32(), neg(far), far));
}

}  // namespace vila::kernels::VILA_ISA_NS
