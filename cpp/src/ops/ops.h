// The checked front of the kernels: every function checks shapes once, splits the work over the threads and calls the
// table. This room is the device seam: models know these functions only, so another device is another ops.cpp.
// All shapes are [rows, columns] of f32. A failed check is an InternalError, because models own their shapes.
#pragma once

#include <cstdint>
#include <span>

#include "ops/exec_context.h"
#include "tensor/tensor.h"

namespace vila::ops {

/// Widest attention head that the kernels take.
inline constexpr std::int64_t kMaxHeadDim = kernels::kMaxHeadDim;

/// Rows of activations that several matrices multiply; their int8 form is computed once, when first needed, into the
/// workspace frame that is open when the object is made.
class Activations {
 public:
  Activations(ExecContext& ctx, Rows x) : ctx_(ctx), x_(x) {}
  [[nodiscard]] const Rows& rows() const { return x_; }

 private:
  friend void linear_group(ExecContext&, Activations&, std::span<const struct LinearJob>);
  void quantize(const WeightFormat& format);
  ExecContext& ctx_;
  Rows x_;
  std::int64_t group_ = -1, k_padded_ = 0;  // of the weights that the int8 form is for; group_ < 0: none yet
  std::int64_t a_group_ = 0;                // columns per scale of the int8 form
  std::int8_t* q_ = nullptr;
  float* scale_ = nullptr;
  std::int32_t* sum_ = nullptr;
  float* weighted_ = nullptr;
};

struct LinearJob {
  const Weight* weight;  ///< [N, K]
  const float* bias;     ///< [N] or null
  Rows y;                ///< [T, N]
};

/// y = x W^T + bias for several matrices that share x [T, K], in one parallel region.
void linear_group(ExecContext& ctx, Activations& x, std::span<const LinearJob> jobs);
void linear(ExecContext& ctx, Rows x, const Weight& weight, const float* bias, Rows y);

void rms_norm(ExecContext& ctx, Rows x, const float* weight, float eps, Rows y);
void layer_norm(ExecContext& ctx, Rows x, const float* weight, const float* bias, float eps, Rows y);

/// In place on [T, n_heads * head_dim]; row t stands at first_position + t. Tables are [positions, head_dim / 2].
void rope(ExecContext& ctx, Rows x, std::int64_t n_heads, std::int64_t first_position, const float* cos_table,
          const float* sin_table, std::int64_t head_dim);

/// Writes k and v [T, Hkv * D] at first_position. D is at most kMaxHeadDim, with int16 kernels::kMaxHeadDimS16; so for
/// attention.
void kv_append(ExecContext& ctx, Rows k, Rows v, std::int64_t first_position, const kernels::KvLayout& cache);

struct AttentionShape {
  std::int64_t n_heads, first_position, n_positions;
  float scale;
  bool causal;
};
/// out = softmax(q k^T * scale) v per head; q and out are [T, H * D].
void attention(ExecContext& ctx, Rows q, const kernels::KvLayout& cache, const AttentionShape& shape, Rows out);

/// y = silu(gate) * up; y may be one of them.
void silu_mul(ExecContext& ctx, Rows gate, Rows up, Rows y);
/// In place.
void unary(ExecContext& ctx, kernels::Unary op, Rows x);
/// x += y.
void add(ExecContext& ctx, Rows x, Rows y);
/// x += scale[c] * y (layer scale).
void scale_add(ExecContext& ctx, Rows x, const float* scale, Rows y);

/// Rows of an embedding table [V, C] (f32 or f16); ids must lie inside it.
void embed(ExecContext& ctx, const TensorView& table, std::span<const std::int32_t> ids, Rows out);

}  // namespace vila::ops
