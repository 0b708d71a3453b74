// Activation functions: the gated SiLU of LLaMA (Shazeer, arXiv:2002.05202) and both forms of GELU (Hendrycks &
// Gimpel, arXiv:1606.08415). Nothing here mixes lanes, so any split of the values gives the same bits.
#pragma once

#include <cstdint>

#include "kernels/kernel_table.h"
#include "kernels/simd/math.h"

namespace vila::kernels::VILA_ISA_NS {

// x / (1 + e^-x)
inline F32x16 silu(F32x16 x) { return div(x, add(splat(1.0F), exp(neg(x)))); }

// x/2 (1 + erf(x / sqrt 2))
inline F32x16 gelu_erf(F32x16 x) {
  const F32x16 half = mul(x, splat(0.5F));
  return fma(half, erf(mul(x, splat(0x1.6a09e6p-1F))), half);
}

// x/2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
inline F32x16 gelu_tanh(F32x16 x) {
  const F32x16 half = mul(x, splat(0.5F));
  const F32x16 cubic = fma(mul(mul(x, x), splat(0.044715F)), x, x);
  return fma(half, tanh(mul(cubic, splat(0x1.988454p-1F))), half);
}

// y = silu(gate) * up over n values; y may be gate or up.
static void silu_mul(const float* gate, const float* up, float* y, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + 16 <= n; i += 16) store(y + i, mul(silu(load(gate + i)), load(up + i)));
  const int rest = static_cast<int>(n - i);
  store_partial(y + i, mul(silu(load_partial(gate + i, rest)), load_partial(up + i, rest)), rest);
}

template <F32x16 (*function)(F32x16)>
void apply(const float* x, float* y, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + 16 <= n; i += 16) store(y + i, function(load(x + i)));
  const int rest = static_cast<int>(n - i);
  store_partial(y + i, function(load_partial(x + i, rest)), rest);
}

// y = op(x) over n values; y may be x.
static void unary(Unary op, const float* x, float* y, std::int64_t n) {
  switch (op) {
    case Unary::gelu_erf:
      return apply<gelu_erf>(x, y, n);
    case Unary::gelu_tanh:
      return apply<gelu_tanh>(x, y, n);
  }
}

}  // namespace vila::kernels::VILA_ISA_NS
