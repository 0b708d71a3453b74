#include "models/siglip.h"

#include <array>
#include <cstring>

#include "base/check.h"
#include "layers/vision_attention.h"

namespace vila {

void patchify(const VisionConfig& c, const float* pixels, Rows out) {
  const std::int64_t grid = c.grid();
  const std::int64_t patch = c.patch_size;
  VILA_CHECK(out.rows == grid * grid && out.cols == 3 * patch * patch);
  for (std::int64_t row = 0; row < out.rows; ++row) {
    float* to = out.row(row);
    for (std::int64_t channel = 0; channel < 3; ++channel) {
      for (std::int64_t y = 0; y < patch; ++y, to += patch) {
        const std::int64_t source =
            (channel * c.image_size + row / grid * patch + y) * c.image_size + row % grid * patch;
        std::memcpy(to, pixels + source, static_cast<std::size_t>(patch) * sizeof(float));
      }
    }
  }
}

SiglipBlock::SiglipBlock(const VisionConfig& c, const WeightScope& scope)
    : norm1(scope, "layer_norm1", c.dim, c.norm_eps), norm2(scope, "layer_norm2", c.dim, c.norm_eps) {
  const WeightScope attention = scope.sub("self_attn");
  q = Linear(attention, "q_proj", c.dim, c.dim, Bias::yes);
  k = Linear(attention, "k_proj", c.dim, c.dim, Bias::yes);
  v = Linear(attention, "v_proj", c.dim, c.dim, Bias::yes);
  out = Linear(attention, "out_proj", c.dim, c.dim, Bias::yes);
  fc1 = Linear(scope.sub("mlp"), "fc1", c.ffn_dim, c.dim, Bias::yes);
  fc2 = Linear(scope.sub("mlp"), "fc2", c.dim, c.ffn_dim, Bias::yes);
}

SiglipTower::SiglipTower(const VisionConfig& c, const WeightScope& scope)
    : config_(c),
      patch_(scope.sub("embeddings"), "patch_embedding", c.dim, 3 * c.patch_size * c.patch_size, Bias::yes),
      positions_(scope.table("embeddings.position_embedding.weight", c.grid() * c.grid(), c.dim)) {
  for (std::int64_t i = 0; i < c.n_layers; ++i) blocks_.emplace_back(c, scope.sub("encoder").sub("layers", i));
}

void SiglipTower::block(ExecContext& ctx, const SiglipBlock& layer, Rows x) const {
  {  // x = x + Wout attention(norm1(x))
    const Workspace::Frame frame(ctx.workspace);
    const Rows normed = ctx.workspace.rows(x.rows, x.cols);
    const Rows q = ctx.workspace.rows(x.rows, x.cols);
    const Rows k = ctx.workspace.rows(x.rows, x.cols);
    const Rows v = ctx.workspace.rows(x.rows, x.cols);
    layer.norm1(ctx, x, normed);
    ops::Activations input(ctx, normed);
    ops::linear_group(ctx, input, std::array{layer.q.job(q), layer.k.job(k), layer.v.job(v)});
    const kernels::KvType type = vision_kv_type(layer.q.weight.format, config_.dim / config_.n_heads);
    vision_attention(ctx, q, k, v, config_.n_heads, normed, type);
    layer.out(ctx, normed, q);
    ops::add(ctx, x, q);
  }
  {  // x = x + W2 gelu(W1 norm2(x))
    const Workspace::Frame frame(ctx.workspace);
    const Rows normed = ctx.workspace.rows(x.rows, x.cols);
    const Rows hidden = ctx.workspace.rows(x.rows, config_.ffn_dim);
    layer.norm2(ctx, x, normed);
    layer.fc1(ctx, normed, hidden);
    ops::unary(ctx, config_.gelu_tanh ? kernels::Unary::gelu_tanh : kernels::Unary::gelu_erf, hidden);
    layer.fc2(ctx, hidden, normed);
    ops::add(ctx, x, normed);
  }
}

void SiglipTower::forward(ExecContext& ctx, const float* pixels, Rows features) const {
  const std::int64_t patches = config_.grid() * config_.grid();
  VILA_CHECK(features.rows == patches && features.cols == config_.dim);
  {  // x = Wpatch patches + positions
    const Workspace::Frame frame(ctx.workspace);
    const Rows input = ctx.workspace.rows(patches, 3 * config_.patch_size * config_.patch_size);
    patchify(config_, pixels, input);
    patch_(ctx, input, features);
  }
  ops::add(ctx, features, {const_cast<float*>(positions_), patches, config_.dim, config_.dim});
  for (const SiglipBlock& layer : blocks_) {
    ctx.check_stop();
    block(ctx, layer, features);
  }
}

}  // namespace vila
