#include "reference/reference.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numbers>

namespace vila::reference {
namespace {

std::int64_t scale_index(std::int64_t n, std::int64_t group, std::int64_t groups) {
  return (n / 16 * groups + group) * 16 + n % 16;
}

Sum matmul_q(const kernels::MatmulQArgs& p, bool int4, std::int64_t m, std::int64_t n) {
  const std::int64_t groups = p.k_padded / p.group;
  Sum sum;
  for (std::int64_t g = 0; g < groups; ++g) {
    const double w_scale = half_to_double(p.w_scale[scale_index(n, g, groups)]);
    double offset = -8 * w_scale;
    if (p.w_zero != nullptr) offset = -w_scale * p.w_zero[scale_index(n, g, groups)];
    if (p.w_offset != nullptr) offset = half_to_double(p.w_offset[scale_index(n, g, groups)]);
    for (std::int64_t first = g * p.group; first < (g + 1) * p.group; first += p.a_group) {
      const double a_scale = p.a_scale[(m * p.k_padded + first) / p.a_group];
      std::int64_t dot = 0;
      std::int64_t a_sum = 0;
      for (std::int64_t k = first; k < first + p.a_group; ++k) {
        const int a = p.a[m * p.k_padded + k];
        dot += a * (int4 ? packed_int4(p.w, n, k, p.k_padded) : packed_int8(p.w, n, k, p.k_padded));
        a_sum += a;
      }
      sum.add(w_scale * a_scale * static_cast<double>(dot));
      if (int4) sum.add(offset * a_scale * static_cast<double>(a_sum));
    }
  }
  if (p.bias != nullptr) sum.add(p.bias[n]);
  return sum;
}

template <class Weight>
Sum matmul_f(const kernels::MatmulFArgs& p, std::int64_t m, std::int64_t n, Weight weight) {
  Sum sum;
  for (std::int64_t k = 0; k < p.k; ++k) {
    sum.add(weight((n / 16 * p.k + k) * 16 + n % 16) * static_cast<double>(p.a[m * p.a_stride + k]));
  }
  if (p.bias != nullptr) sum.add(p.bias[n]);
  return sum;
}

// Column d of a head's key or value at a position, times its scale if there is one. int16 keeps columns of keys and
// positions of values in pairs.
double cached(const kernels::KvLayout& cache, std::int64_t kv_head, std::int64_t position, bool value, std::int64_t d) {
  const auto* block = static_cast<const std::byte*>(cache.data) + position / 64 * cache.block_stride;
  const std::int64_t slot = position % 64;
  const std::int64_t pair = cache.type == kernels::KvType::int16 ? 2 : 1;
  const std::int64_t padded = (cache.head_dim + 15) / 16 * 16;
  const std::int64_t n_keys = 64 * ((cache.head_dim + pair - 1) / pair * pair);
  const std::int64_t n_elements = n_keys + 64 * padded;
  const std::int64_t at =
      value ? n_keys + (slot / pair * padded + d) * pair + slot % pair : (d / pair * 64 + slot) * pair + d % pair;
  const auto scale = [&](const std::byte* behind) {
    return static_cast<double>(reinterpret_cast<const float*>(behind)[(value ? 64 : 0) + slot]);
  };
  constexpr std::int64_t kScaleBytes = 2 * 64 * 4;
  switch (cache.type) {
    case kernels::KvType::f32:
      return reinterpret_cast<const float*>(block)[kv_head * n_elements + at];
    case kernels::KvType::f16:
      return half_to_double(reinterpret_cast<const std::uint16_t*>(block)[kv_head * n_elements + at]);
    case kernels::KvType::int8: {
      const std::byte* tile = block + kv_head * (n_elements + kScaleBytes);
      return scale(tile + n_elements) * reinterpret_cast<const std::int8_t*>(tile)[at];
    }
    case kernels::KvType::int16: {
      const std::byte* tile = block + kv_head * (2 * n_elements + kScaleBytes);
      return scale(tile + 2 * n_elements) * reinterpret_cast<const std::int16_t*>(tile)[at];
    }
  }
  return 0;
}

}  // namespace

void Sum::add(double term) {
  value += term;
  magnitude += std::abs(term);
}

double half_to_double(std::uint16_t bits) {
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  const int exponent = (bits >> 10) & 31;
  const int mantissa = bits & 1023;
  if (exponent == 31) {
    return mantissa != 0 ? std::numeric_limits<double>::quiet_NaN() : sign * std::numeric_limits<double>::infinity();
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

std::uint16_t double_to_half(double value) {
  const int sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::abs(value);
  // Between 0 and infinity the bits count the halves in order: the nearest lies among the neighbours of a bisection.
  int low = 0;
  int high = 0x7c00;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (half_to_double(static_cast<std::uint16_t>(middle)) <= magnitude ? low : high) = middle;
  }
  const double below = half_to_double(static_cast<std::uint16_t>(low));
  const double above = high == 0x7c00 ? 65536.0 : half_to_double(static_cast<std::uint16_t>(high));
  const double to_below = magnitude - below;
  const double to_above = above - magnitude;
  const bool up = to_above < to_below || (to_above == to_below && low % 2 == 1);
  return static_cast<std::uint16_t>(sign | (up ? high : low));
}

int packed_int4(const std::uint8_t* w, std::int64_t n, std::int64_t k, std::int64_t k_padded) {
  const std::int64_t tile = n / 16 * (k_padded / 8 * 64);
  const std::uint8_t byte = w[tile + k / 8 * 64 + 4 * (n % 16) + k % 4];
  return k % 8 < 4 ? byte % 16 : byte / 16;
}

int packed_int8(const std::uint8_t* w, std::int64_t n, std::int64_t k, std::int64_t k_padded) {
  const std::int64_t tile = n / 16 * (k_padded / 4 * 64);
  const int byte = w[tile + k / 4 * 64 + 4 * (n % 16) + k % 4];
  return byte < 128 ? byte : byte - 256;
}

Sum matmul_w4(const kernels::MatmulQArgs& p, std::int64_t m, std::int64_t n) { return matmul_q(p, true, m, n); }
Sum matmul_w8(const kernels::MatmulQArgs& p, std::int64_t m, std::int64_t n) { return matmul_q(p, false, m, n); }

Sum matmul_f32(const kernels::MatmulFArgs& p, std::int64_t m, std::int64_t n) {
  return matmul_f(p, m, n, [&](std::int64_t at) { return static_cast<double>(static_cast<const float*>(p.w)[at]); });
}

Sum matmul_f16(const kernels::MatmulFArgs& p, std::int64_t m, std::int64_t n) {
  return matmul_f(p, m, n, [&](std::int64_t at) { return half_to_double(static_cast<const std::uint16_t*>(p.w)[at]); });
}

std::vector<double> rms_norm(const kernels::NormArgs& p, std::int64_t m) {
  const float* x = p.x + m * p.x_stride;
  double squares = 0;
  for (std::int64_t c = 0; c < p.c; ++c) squares += static_cast<double>(x[c]) * x[c];
  const double root = std::sqrt(squares / static_cast<double>(p.c) + p.eps);
  std::vector<double> y;
  for (std::int64_t c = 0; c < p.c; ++c) y.push_back(x[c] / root * p.weight[c]);
  return y;
}

LayerNorm layer_norm(const kernels::NormArgs& p, std::int64_t m) {
  const float* x = p.x + m * p.x_stride;
  const auto columns = static_cast<double>(p.c);
  LayerNorm result;
  for (std::int64_t c = 0; c < p.c; ++c) {
    result.mean += x[c] / columns;
    result.mean_magnitude += std::abs(x[c]) / columns;
  }
  for (std::int64_t c = 0; c < p.c; ++c) result.variance += (x[c] - result.mean) * (x[c] - result.mean) / columns;
  const double root = std::sqrt(result.variance + p.eps);
  for (std::int64_t c = 0; c < p.c; ++c) {
    result.y.push_back((x[c] - result.mean) / root * p.weight[c] + (p.bias != nullptr ? p.bias[c] : 0.0F));
  }
  return result;
}

std::vector<double> rope(const kernels::RopeArgs& p, std::int64_t m) {
  const float* x = p.x + m * p.x_stride;
  const std::int64_t half = p.head_dim / 2;
  std::vector<double> y(static_cast<std::size_t>(p.n_heads * p.head_dim));
  for (std::int64_t at = 0; at < p.n_heads * p.head_dim; ++at) {
    const std::int64_t d = at % p.head_dim;
    const std::int64_t angle = (p.first_position + m) * half + d % half;
    const double cosine = p.cos_table[angle];
    const double sine = p.sin_table[angle];
    const double partner = d < half ? -x[at + half] : x[at - half];
    y[static_cast<std::size_t>(at)] = x[at] * cosine + partner * sine;
  }
  return y;
}

double silu(double x) { return x / (1 + std::exp(-x)); }
// erfc keeps the left tail, where 1 + erf would cancel.
double gelu_erf(double x) { return x / 2 * std::erfc(-x / std::numbers::sqrt2); }
double gelu_tanh(double x) {
  const double z = std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x);
  return x / (1 + std::exp(-2 * z));  // x/2 (1 + tanh z)
}

double cached_key(const kernels::KvLayout& cache, std::int64_t kv_head, std::int64_t position, std::int64_t d) {
  return cached(cache, kv_head, position, false, d);
}

double cached_value(const kernels::KvLayout& cache, std::int64_t kv_head, std::int64_t position, std::int64_t d) {
  return cached(cache, kv_head, position, true, d);
}

Attention attention(const kernels::AttentionArgs& p, std::int64_t head, std::int64_t m) {
  const std::int64_t dim = p.cache.head_dim;
  const std::int64_t kv_head = head / (p.n_heads / p.cache.n_kv_heads);
  Attention result;
  result.seen = p.causal ? std::min(p.first_position + m + 1, p.n_positions) : p.n_positions;
  std::vector<double> scores;
  for (std::int64_t position = 0; position < result.seen; ++position) {
    Sum score;
    Sum key;
    for (std::int64_t d = 0; d < dim; ++d) {
      const double query = static_cast<double>(p.q[m * p.q_stride + head * dim + d]) * p.scale;
      key.add(cached_key(p.cache, kv_head, position, d));
      score.add(query * cached_key(p.cache, kv_head, position, d));
      result.query_magnitude = std::max(result.query_magnitude, std::abs(query));
    }
    scores.push_back(score.value);
    result.key_magnitude = std::max(result.key_magnitude, key.magnitude);
    result.score_magnitude = std::max(result.score_magnitude, score.magnitude);
  }
  const double highest = *std::max_element(scores.begin(), scores.end());
  double total = 0;
  for (double& score : scores) total += score = std::exp(score - highest);
  result.out.resize(static_cast<std::size_t>(dim));
  for (std::int64_t position = 0; position < result.seen; ++position) {
    const double weight = scores[static_cast<std::size_t>(position)] / total;
    result.weights.push_back(weight);
    for (std::int64_t d = 0; d < dim; ++d) {
      result.out[static_cast<std::size_t>(d)].add(weight * cached_value(p.cache, kv_head, position, d));
    }
  }
  return result;
}

}  // namespace vila::reference
