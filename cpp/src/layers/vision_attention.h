// Self-attention over all patches of one picture: what the two vision towers share.
#pragma once

#include <cmath>
#include <cstddef>

#include "ops/ops.h"

namespace vila {

/// In what a tower's keys and values are kept: integers where the block's weights [N, K] are integers, so that q, k and
/// v carry the roundings of an integer product anyway, and where heads are narrow enough; else f32.
inline kernels::KvType vision_kv_type(const WeightFormat& weights, std::int64_t head_dim) {
  return weights.is_integer() && head_dim <= kernels::kMaxHeadDimS16 ? kernels::KvType::int16 : kernels::KvType::f32;
}

/// out [P, C] = multi-head attention of q, k, v [P, C]; every patch sees every patch.
inline void vision_attention(ExecContext& ctx, Rows q, Rows k, Rows v, std::int64_t n_heads, Rows out,
                             kernels::KvType type) {
  const Workspace::Frame frame(ctx.workspace);
  kernels::KvLayout cache;
  cache.n_kv_heads = n_heads;
  cache.head_dim = q.cols / n_heads;
  cache.type = type;
  cache.capacity = round_up(q.rows, kernels::kAttentionBlock);
  cache.block_stride = cache.block_bytes();
  cache.data = ctx.workspace.allocate<std::byte>(cache.capacity / kernels::kAttentionBlock * cache.block_stride);
  ops::kv_append(ctx, k, v, 0, cache);
  const float scale = 1.0F / std::sqrt(static_cast<float>(cache.head_dim));
  ops::attention(ctx, q, cache, {n_heads, 0, q.rows, scale, false}, out);
}

}  // namespace vila
