// The seam between the engine and the instruction sets: one struct of function pointers and the arguments they take.
// Kernels know pointers and sizes only. They do not allocate, throw, start threads or check; the ops room does all
// that.
//
// Letters: M rows of activations, N output features, K input features, G groups along K, D head_dim, S cached
// positions. The same bits on every ISA: integer sums are exact, every float sum has one order, fma only where written.
#pragma once

#include <cstdint>

#include "layout/weight_format.h"

namespace vila::kernels {

enum class Isa : std::uint8_t { scalar, avx2, avxvnni, avx512, avx512vnni, neon, neon_dotprod, neon_i8mm };

/// Half open.
struct Range {
  std::int64_t begin = 0, end = 0;
};

/// Columns of activations that share one scale. A weight's group holds a whole number of them, so that an outlier among
/// the activations spoils 32 values, not 128; whole-row int8 weights take one scale for the whole row of activations.
inline constexpr std::int64_t kActivationGroup = 32;

/// Rows of f32 to symmetric int8 per group of columns: scale = max|x| / 127, q = round_half_even(x / scale). A group
/// whose magnitudes all lie below 2^-100 counts as zeros (scale 0). Columns from k to k_padded are written as 0.
struct QuantizeArgs {
  const float* x;  ///< [M, k], row stride x_stride
  std::int64_t x_stride;
  std::int8_t* q;       ///< [M, k_padded], dense
  float* scale;         ///< [M, k_padded / group]
  std::int32_t* sum;    ///< [M, k_padded / group]: sum of the group's q
  float* weighted_sum;  ///< [M, k_padded / weight_group]: sum over groups ascending of scale * sum, one fma each
  std::int64_t k, k_padded, group, weight_group;  ///< weight_group is a multiple of group
};

/// y[m, n] = (sum over weight groups g ascending of w_scale[n, g] * d[m, n, g] + offset[n, g] * a_weighted[m, g]) +
/// bias[n], d[m, n, g] = sum over the activation groups s of g ascending of a_scale[m, s] * dot, one fma per term; dot
/// is the exact integer product of the stored values. Offsets exist for int4 only: -8 * w_scale, or -zero * w_scale, or
/// the stored one.
struct MatmulQArgs {
  const std::int8_t* a;           ///< [M, k_padded]
  const float* a_scale;           ///< [M, k_padded / a_group]
  const std::int32_t* a_sum;      ///< [M, k_padded / a_group]
  const float* a_weighted;        ///< [M, k_padded / group]; int4 only
  const std::uint8_t* w;          ///< packed w4p16x8 or w8p16x4
  const std::uint16_t* w_scale;   ///< f16 [N/16, G, 16]
  const std::uint8_t* w_zero;     ///< u8 [N/16, G, 16] or null (int4 only)
  const std::uint16_t* w_offset;  ///< f16 [N/16, G, 16] or null (int4 only)
  const float* bias;              ///< [N] or null
  float* y;                       ///< [M, N], row stride y_stride; only the first N columns of a last tile are written
  std::int64_t m, n, k_padded, group, a_group, y_stride;  ///< a_group is kActivationGroup for int4
};

/// y[m, n] = bias[n] + sum over k ascending of w[n, k] * a[m, k], one fma per term; w is f32p16 or f16p16.
struct MatmulFArgs {
  const float* a;  ///< [M, K], row stride a_stride
  std::int64_t a_stride;
  const void* w;      ///< packed [N/16, K, 16]
  const float* bias;  ///< [N] or null
  float* y;           ///< [M, N], row stride y_stride
  std::int64_t m, n, k, y_stride;
};

/// Row-wise normalisation of x [M, C] with its own row strides; y may be x.
struct NormArgs {
  const float* x;
  const float* weight;  ///< [C]
  const float* bias;    ///< [C] or null; layer_norm only
  float* y;
  std::int64_t x_stride, y_stride, c;
  float eps;
};

/// Rotary embedding, rotate-half form, in place on [M, n_heads * D]: (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin).
struct RopeArgs {
  float* x;                ///< row stride x_stride
  const float* cos_table;  ///< [position, D / 2]; row m uses position first_position + m
  const float* sin_table;
  std::int64_t x_stride, n_heads, head_dim, first_position;
};

/// Positions per block of the cache. Attention cuts its sums at multiples of it of the absolute position.
inline constexpr std::int64_t kAttentionBlock = 64;
inline constexpr std::int64_t kMaxHeadDim = 256;

/// int16 is for attention in integers: its products are of int16 pairs, and its sums must fit 32 bits.
enum class KvType : std::uint8_t { f32, f16, int8, int16 };

/// Widest head of int16, and the largest magnitudes of its integers: sums over 128 columns of queries times keys, and
/// over 64 positions of weights times values, stay below 2^31 (2,146,435,200 and 2,145,321,024).
inline constexpr std::int64_t kMaxHeadDimS16 = 128;
inline constexpr int kScoreBound = 4095;  // of queries and keys
inline constexpr int kValueBound = 1023;
inline constexpr int kWeightBound = 32767;  // of softmax weights times the values' scales
static_assert(kMaxHeadDimS16 * kScoreBound * kScoreBound <= INT32_MAX);
static_assert(kAttentionBlock * kWeightBound * kValueBound <= INT32_MAX);

/// Where the keys and values of one layer lie. A tile holds one block of positions of one KV head, one part behind the
/// other: keys [D][64], so that the scores of 16 positions are one vector; values [64][Dp], Dp = D rounded up to 16;
/// for int8 and int16 also f32 scales of the keys [64] and of the values [64]: stored = round_half_even(x * (bound /
/// max|x|)) over the head's D columns at one position, scale = max|x| / bound, where max|x| < 2^-100 counts as zeros.
/// The bound of int8 is 127. For int16 pairs of columns and pairs of positions lie side by side, keys [Dk / 2][64][2],
/// Dk = D rounded up to 2 with 0, and values [32][Dp][2]. A tile of position s and head h begins at data + s / 64 *
/// block_stride + h * tile_bytes().
struct KvLayout {
  void* data = nullptr;
  std::int64_t n_kv_heads = 0, head_dim = 0, capacity = 0;  ///< capacity is a multiple of kAttentionBlock
  std::int64_t block_stride = 0;                            ///< bytes from one block of positions to the next
  KvType type = KvType::f32;

  [[nodiscard]] constexpr std::int64_t element_bytes() const {
    return type == KvType::f32 ? 4 : type == KvType::int8 ? 1 : 2;
  }
  [[nodiscard]] constexpr bool scaled() const { return type == KvType::int8 || type == KvType::int16; }
  [[nodiscard]] constexpr std::int64_t padded_dim() const { return (head_dim + 15) / 16 * 16; }
  [[nodiscard]] constexpr std::int64_t key_bytes() const {
    return kAttentionBlock * (type == KvType::int16 ? (head_dim + 1) / 2 * 2 : head_dim) * element_bytes();
  }
  [[nodiscard]] constexpr std::int64_t value_bytes() const { return kAttentionBlock * padded_dim() * element_bytes(); }
  [[nodiscard]] constexpr std::int64_t tile_bytes() const {
    return key_bytes() + value_bytes() + (scaled() ? 2 * kAttentionBlock * 4 : 0);
  }
  /// Bytes of one block of positions of this layer, all heads; the least block_stride.
  [[nodiscard]] constexpr std::int64_t block_bytes() const { return n_kv_heads * tile_bytes(); }
};

/// Appends rows of keys and values at first_position; padding columns of values are set to 0.
struct KvAppendArgs {
  const float* k;  ///< [M, Hkv * D], row stride k_stride
  const float* v;  ///< [M, Hkv * D], row stride v_stride
  std::int64_t k_stride, v_stride, first_position;
  KvLayout cache;
};

/// Streaming-softmax attention. Row m of q stands at first_position + m and sees positions 0..itself when causal,
/// else 0..n_positions-1. Blocks of positions are cut at multiples of kAttentionBlock of the absolute position, so the
/// result does not depend on how a prompt was cut into chunks. Masked and unwritten positions are never read as numbers
/// that count. Query head h reads kv head h / (H / Hkv). Work is counted in queries of a KV head: query i is row
/// i / (H / Hkv), and head i % (H / Hkv) of those that share the KV head, so that they can share a pass over the cache.
struct AttentionArgs {
  const float* q;  ///< [M, H * D], row stride q_stride
  float* out;      ///< [M, H * D], row stride out_stride
  std::int64_t q_stride, out_stride, m, n_heads, first_position, n_positions;
  KvLayout cache;
  float scale;  ///< usually 1 / sqrt(D)
  bool causal;

  /// Queries of one KV head.
  [[nodiscard]] constexpr std::int64_t n_queries() const { return m * (n_heads / cache.n_kv_heads); }
};

enum class Unary : std::uint8_t { gelu_erf, gelu_tanh };

/// One table per instruction set. Every entry is noexcept in spirit: it cannot fail on arguments that ops has checked.
/// Ranges are rows unless said otherwise.
struct KernelTable {
  Isa isa;
  const char* name;  ///< "avx512vnni"
  void (*quantize_s8)(const QuantizeArgs&, Range rows);
  void (*matmul_w4)(const MatmulQArgs&, Range tiles);  ///< tiles of 16 output columns; K is never split
  void (*matmul_w8)(const MatmulQArgs&, Range tiles);
  void (*matmul_f32)(const MatmulFArgs&, Range tiles);
  void (*matmul_f16)(const MatmulFArgs&, Range tiles);
  void (*rms_norm)(const NormArgs&, Range rows);    ///< y = x / sqrt(mean(x^2) + eps) * weight
  void (*layer_norm)(const NormArgs&, Range rows);  ///< y = (x - mean) / sqrt(var + eps) * weight + bias
  void (*rope)(const RopeArgs&, Range rows);
  void (*kv_append)(const KvAppendArgs&, Range rows);
  void (*attention)(const AttentionArgs&, std::int64_t kv_head, Range queries);
  void (*silu_mul)(const float* gate, const float* up, float* y, std::int64_t n);  ///< y = silu(gate) * up
  void (*unary)(Unary op, const float* x, float* y, std::int64_t n);
  void (*add)(const float* x, const float* y, float* out, std::int64_t n);  ///< out = x + y
  /// out[m, c] = x[m, c] + scale[c] * y[m, c]  (layer scale); dense rows.
  void (*scale_add)(const float* x, const float* y, const float* scale, float* out, Range rows, std::int64_t c);
  void (*f16_to_f32)(const std::uint16_t* x, float* y, std::int64_t n);
  void (*f32_to_f16)(const float* x, std::uint16_t* y, std::int64_t n);  ///< round to nearest even
  /// Limits of this instruction set, for benchmarks: `steps` rounds of dot products of w [64] and a [64], or of fused
  /// multiply-adds of x [16], on registers alone. Both give the number of multiply-accumulates; sink [16] keeps the
  /// sums alive.
  std::int64_t (*probe_dot)(std::int64_t steps, const std::uint8_t* w, const std::int8_t* a, float* sink);
  std::int64_t (*probe_fma)(std::int64_t steps, const float* x, float* sink);
  float (*probe_read)(const float* x, std::int64_t n);  ///< reads n floats, n % 64 == 0
};

}  // namespace vila::kernels
