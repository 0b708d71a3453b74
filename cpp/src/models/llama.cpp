#include "models/llama.h"

#include <array>
#include <cmath>

#include "base/check.h"

namespace vila {

LlamaBlock::LlamaBlock(const LlamaConfig& c, const WeightScope& scope)
    : attention_norm(scope, "input_layernorm", c.dim, c.norm_eps),
      mlp_norm(scope, "post_attention_layernorm", c.dim, c.norm_eps) {
  const WeightScope attention = scope.sub("self_attn");
  const WeightScope mlp = scope.sub("mlp");
  const Bias attention_bias = c.attention_bias ? Bias::yes : Bias::no;
  const Bias mlp_bias = c.mlp_bias ? Bias::yes : Bias::no;
  const std::int64_t q_dim = c.n_heads * c.head_dim;
  const std::int64_t kv_dim = c.n_kv_heads * c.head_dim;
  q = Linear(attention, "q_proj", q_dim, c.dim, attention_bias);
  k = Linear(attention, "k_proj", kv_dim, c.dim, attention_bias);
  v = Linear(attention, "v_proj", kv_dim, c.dim, attention_bias);
  o = Linear(attention, "o_proj", c.dim, q_dim, attention_bias);
  gate = Linear(mlp, "gate_proj", c.ffn_dim, c.dim, mlp_bias);
  up = Linear(mlp, "up_proj", c.ffn_dim, c.dim, mlp_bias);
  down = Linear(mlp, "down_proj", c.dim, c.ffn_dim, mlp_bias);
}

LlamaModel::LlamaModel(const LlamaConfig& c, const WeightScope& scope) : config_(c) {
  const WeightScope model = scope.sub("model");
  embedding_ = model.rows("embed_tokens.weight", c.vocab_size, c.dim);
  blocks_.reserve(static_cast<std::size_t>(c.n_layers));
  for (std::int64_t i = 0; i < c.n_layers; ++i) blocks_.emplace_back(c, model.sub("layers", i));
  norm_ = RmsNorm(model, "norm", c.dim, c.norm_eps);
  head_ = Linear(scope, "lm_head", c.vocab_size, c.dim, Bias::no);

  // Angles are rounded to f32 as the reference rounds them: f32 inverse frequency times f32 position.
  const std::int64_t half = c.head_dim / 2;
  std::vector<float> inverse_frequency(static_cast<std::size_t>(half));
  for (std::int64_t i = 0; i < half; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(c.head_dim);
    const auto power = static_cast<float>(std::pow(static_cast<double>(c.rope_theta), static_cast<double>(exponent)));
    inverse_frequency[static_cast<std::size_t>(i)] = 1.0F / power;
  }
  cos_.resize(static_cast<std::size_t>(c.max_context * half));
  sin_.resize(cos_.size());
  for (std::int64_t position = 0; position < c.max_context; ++position) {
    for (std::int64_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(position) * inverse_frequency[static_cast<std::size_t>(i)];
      const auto at = static_cast<std::size_t>(position * half + i);
      cos_[at] = static_cast<float>(std::cos(static_cast<double>(angle)));
      sin_[at] = static_cast<float>(std::sin(static_cast<double>(angle)));
    }
  }
}

void LlamaModel::block(ExecContext& ctx, const LlamaBlock& layer, const kernels::KvLayout& cache,
                       std::int64_t first_position, Rows x, std::int64_t n_out) const {
  const LlamaConfig& c = config_;
  const std::int64_t skipped = x.rows - n_out;  // rows of which keys and values are all that is wanted
  const Rows kept = x.slice(skipped, n_out);
  {  // x = x + Wo attention(norm(x))
    const Workspace::Frame frame(ctx.workspace);
    const Rows all_normed = ctx.workspace.rows(x.rows, c.dim);
    const Rows normed = all_normed.slice(skipped, n_out);
    const Rows q = ctx.workspace.rows(n_out, c.n_heads * c.head_dim);
    const Rows k = ctx.workspace.rows(x.rows, c.n_kv_heads * c.head_dim);
    const Rows v = ctx.workspace.rows(x.rows, c.n_kv_heads * c.head_dim);
    layer.attention_norm(ctx, x, all_normed);
    ops::Activations input(ctx, all_normed);
    if (skipped == 0) {
      ops::linear_group(ctx, input, std::array{layer.q.job(q), layer.k.job(k), layer.v.job(v)});
    } else {
      ops::linear_group(ctx, input, std::array{layer.k.job(k), layer.v.job(v)});
    }
    ops::rope(ctx, k, c.n_kv_heads, first_position, cos_.data(), sin_.data(), c.head_dim);
    ops::kv_append(ctx, k, v, first_position, cache);
    if (n_out == 0) return;
    if (skipped > 0) layer.q(ctx, normed, q);
    ops::rope(ctx, q, c.n_heads, first_position + skipped, cos_.data(), sin_.data(), c.head_dim);
    const float scale = 1.0F / std::sqrt(static_cast<float>(c.head_dim));
    ops::attention(ctx, q, cache, {c.n_heads, first_position + skipped, first_position + x.rows, scale, true}, q);
    layer.o(ctx, q, normed);
    ops::add(ctx, kept, normed);
  }
  {  // x = x + Wdown(silu(Wgate norm(x)) * Wup norm(x))
    const Workspace::Frame frame(ctx.workspace);
    const Rows normed = ctx.workspace.rows(n_out, c.dim);
    const Rows gate = ctx.workspace.rows(n_out, c.ffn_dim);
    const Rows up = ctx.workspace.rows(n_out, c.ffn_dim);
    layer.mlp_norm(ctx, kept, normed);
    ops::Activations input(ctx, normed);
    ops::linear_group(ctx, input, std::array{layer.gate.job(gate), layer.up.job(up)});
    ops::silu_mul(ctx, gate, up, gate);
    layer.down(ctx, gate, normed);
    ops::add(ctx, kept, normed);
  }
}

void LlamaModel::forward(ExecContext& ctx, std::span<const kernels::KvLayout> cache, std::int64_t first_position,
                         Rows x, std::int64_t n_out) const {
  VILA_CHECK(cache.size() == blocks_.size() && x.cols == config_.dim && n_out >= 0 && n_out <= x.rows);
  VILA_CHECK(first_position + x.rows <= config_.max_context);
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    ctx.check_stop();
    block(ctx, blocks_[i], cache[i], first_position, x, i + 1 == blocks_.size() ? n_out : x.rows);
  }
}

void LlamaModel::logits(ExecContext& ctx, Rows x, Rows out) const {
  norm_(ctx, x, x);
  head_(ctx, x, out);
}

}  // namespace vila
