#include "models/intern_vit.h"

#include <cstring>

#include "base/check.h"
#include "layers/vision_attention.h"
#include "models/siglip.h"

namespace vila {

InternVitBlock::InternVitBlock(const VisionConfig& c, const WeightScope& scope)
    : norm1(scope, "norm1", c.dim, c.norm_eps),
      norm2(scope, "norm2", c.dim, c.norm_eps),
      qkv(scope.sub("attn"), "qkv", 3 * c.dim, c.dim, scope.has("attn.qkv.bias") ? Bias::yes : Bias::no),
      proj(scope.sub("attn"), "proj", c.dim, c.dim, Bias::yes),
      fc1(scope.sub("mlp"), "fc1", c.ffn_dim, c.dim, Bias::yes),
      fc2(scope.sub("mlp"), "fc2", c.dim, c.ffn_dim, Bias::yes),
      scale1(scope.vector("ls1", c.dim)),
      scale2(scope.vector("ls2", c.dim)) {
  if (c.qk_norm) {
    q_norm = RmsNorm(scope.sub("attn"), "q_norm", c.dim, c.norm_eps);
    k_norm = RmsNorm(scope.sub("attn"), "k_norm", c.dim, c.norm_eps);
  }
}

InternVitTower::InternVitTower(const VisionConfig& c, const WeightScope& scope)
    : config_(c),
      patch_(scope.sub("embeddings"), "patch_embedding", c.dim, 3 * c.patch_size * c.patch_size, Bias::yes),
      class_token_(scope.vector("embeddings.class_embedding", c.dim)),
      positions_(scope.table("embeddings.position_embedding", c.grid() * c.grid() + 1, c.dim)) {
  for (std::int64_t i = 0; i < c.n_layers; ++i) blocks_.emplace_back(c, scope.sub("encoder").sub("layers", i));
}

void InternVitTower::block(ExecContext& ctx, const InternVitBlock& layer, Rows x) const {
  const std::int64_t dim = config_.dim;
  {  // x = x + ls1 * Wproj attention(norm1(x))
    const Workspace::Frame frame(ctx.workspace);
    const Rows normed = ctx.workspace.rows(x.rows, dim);
    const Rows qkv = ctx.workspace.rows(x.rows, 3 * dim);
    layer.norm1(ctx, x, normed);
    layer.qkv(ctx, normed, qkv);
    const Rows q = qkv.columns(0, dim);
    const Rows k = qkv.columns(dim, dim);
    if (config_.qk_norm) {  // over the whole width, before the heads are split
      layer.q_norm(ctx, q, q);
      layer.k_norm(ctx, k, k);
    }
    const kernels::KvType type = vision_kv_type(layer.qkv.weight.format, dim / config_.n_heads);
    vision_attention(ctx, q, k, qkv.columns(2 * dim, dim), config_.n_heads, normed, type);
    const Rows projected = ctx.workspace.rows(x.rows, dim);
    layer.proj(ctx, normed, projected);
    ops::scale_add(ctx, x, layer.scale1, projected);
  }
  {  // x = x + ls2 * W2 gelu(W1 norm2(x))
    const Workspace::Frame frame(ctx.workspace);
    const Rows normed = ctx.workspace.rows(x.rows, dim);
    const Rows hidden = ctx.workspace.rows(x.rows, config_.ffn_dim);
    layer.norm2(ctx, x, normed);
    layer.fc1(ctx, normed, hidden);
    ops::unary(ctx, config_.gelu_tanh ? kernels::Unary::gelu_tanh : kernels::Unary::gelu_erf, hidden);
    layer.fc2(ctx, hidden, normed);
    ops::scale_add(ctx, x, layer.scale2, normed);
  }
}

void InternVitTower::forward(ExecContext& ctx, const float* pixels, Rows features) const {
  const std::int64_t patches = config_.grid() * config_.grid();
  const std::int64_t dim = config_.dim;
  VILA_CHECK(features.rows == config_.n_features() && features.cols == dim);
  const Workspace::Frame frame(ctx.workspace);
  const Rows x = ctx.workspace.rows(patches + 1, dim);
  {  // x = [class token; Wpatch patches] + positions
    const Workspace::Frame input_frame(ctx.workspace);
    const Rows input = ctx.workspace.rows(patches, 3 * config_.patch_size * config_.patch_size);
    patchify(config_, pixels, input);
    patch_(ctx, input, x.slice(1, patches));
  }
  std::memcpy(x.row(0), class_token_, static_cast<std::size_t>(dim) * sizeof(float));
  ops::add(ctx, x, {const_cast<float*>(positions_), patches + 1, dim, dim});
  for (const InternVitBlock& layer : blocks_) {
    ctx.check_stop();
    block(ctx, layer, x);
  }
  const Rows kept = x.slice(config_.drop_class_token ? 1 : 0, features.rows);
  for (std::int64_t r = 0; r < kept.rows; ++r) {
    std::memcpy(features.row(r), kept.row(r), static_cast<std::size_t>(dim) * sizeof(float));
  }
}

}  // namespace vila
