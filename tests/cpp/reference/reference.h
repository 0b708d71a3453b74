// The kernels once more, slowly and in double precision, written from the formulas of kernel_table.h and
// docs/FORMATS.md. Where a sum is formed, the sum of the absolute terms comes with it: the tests derive their error
// bounds from that.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/kernel_table.h"

namespace vila::reference {

/// Unit roundoff of f32: the relative error of one rounding.
inline constexpr double kRound = 0x1p-24;

/// A sum and the sum of the absolute values of its terms.
struct Sum {
  double value = 0;
  double magnitude = 0;

  void add(double term);
};

/// The value of IEEE half bits; infinities and NaN included.
double half_to_double(std::uint16_t bits);

/// The nearest half, ties to even; overflow gives infinity. `value` is not NaN.
std::uint16_t double_to_half(double value);

/// Unsigned nibble or signed byte of row `n`, column `k` in w4p16x8 or w8p16x4.
int packed_int4(const std::uint8_t* w, std::int64_t n, std::int64_t k, std::int64_t k_padded);
int packed_int8(const std::uint8_t* w, std::int64_t n, std::int64_t k, std::int64_t k_padded);

/// Element [m, n] of a product; the integer dot products are exact.
Sum matmul_w4(const kernels::MatmulQArgs& p, std::int64_t m, std::int64_t n);
Sum matmul_w8(const kernels::MatmulQArgs& p, std::int64_t m, std::int64_t n);
Sum matmul_f32(const kernels::MatmulFArgs& p, std::int64_t m, std::int64_t n);
Sum matmul_f16(const kernels::MatmulFArgs& p, std::int64_t m, std::int64_t n);

/// Row m normalised, [C].
std::vector<double> rms_norm(const kernels::NormArgs& p, std::int64_t m);

/// What the error bound of a layer norm needs beside the row.
struct LayerNorm {
  std::vector<double> y;  ///< [C]
  double mean = 0, mean_magnitude = 0, variance = 0;
};
LayerNorm layer_norm(const kernels::NormArgs& p, std::int64_t m);

/// Row m of x after the rotation, [n_heads * D].
std::vector<double> rope(const kernels::RopeArgs& p, std::int64_t m);

double silu(double x);
double gelu_erf(double x);
double gelu_tanh(double x);

/// Key or value of a head at a position, component d, as the cache holds it.
double cached_key(const kernels::KvLayout& cache, std::int64_t kv_head, std::int64_t position, std::int64_t d);
double cached_value(const kernels::KvLayout& cache, std::int64_t kv_head, std::int64_t position, std::int64_t d);

/// One query row of one head.
struct Attention {
  std::vector<Sum> out;         ///< [D]; magnitude is the weighted mean of |v|
  double score_magnitude = 0;   ///< largest sum of |q_d k_d| * scale over the seen positions
  double query_magnitude = 0;   ///< largest |q_d| * scale
  double key_magnitude = 0;     ///< largest sum of |k_d| over the seen positions
  std::vector<double> weights;  ///< [seen], their sum is 1
  std::int64_t seen = 0;        ///< positions that the row sees
};
Attention attention(const kernels::AttentionArgs& p, std::int64_t head, std::int64_t m);

}  // namespace vila::reference
