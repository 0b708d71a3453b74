// The LLaMA family's decoder (Touvron et al., arXiv:2302.13971): RMSNorm (1910.07467), RoPE (2104.09864), grouped-query
// attention (2305.13245), SwiGLU. Vicuna, Sheared-LLaMA, Llama 3 and Yi are configurations of it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "io/checkpoint.h"
#include "layers/linear.h"
#include "layers/norm.h"
#include "models/config.h"

namespace vila {

struct LlamaBlock {
  RmsNorm attention_norm, mlp_norm;
  Linear q, k, v, o, gate, up, down;

  LlamaBlock(const LlamaConfig& config, const WeightScope& scope);
};

class LlamaModel {
 public:
  /// Binds `llm.*`.
  LlamaModel(const LlamaConfig& config, const WeightScope& scope);

  [[nodiscard]] const LlamaConfig& config() const { return config_; }

  /// Rows of the embedding table: out [T, C].
  void embed(ExecContext& ctx, std::span<const std::int32_t> ids, Rows out) const {
    ops::embed(ctx, embedding_, ids, out);
  }

  /// Runs x [T, C] through all blocks in place; row t stands at first_position + t, and its keys and values are
  /// appended to `cache` (one layout per layer, holding the positions before). Only the last `n_out` rows leave the
  /// last block, which gives the others' keys and values alone; what they hold then is of no use. Throws Cancelled
  /// between layers.
  void forward(ExecContext& ctx, std::span<const kernels::KvLayout> cache, std::int64_t first_position, Rows x,
               std::int64_t n_out) const;

  /// Vocabulary logits [T, V] of rows that left forward(); x is overwritten by its norm.
  void logits(ExecContext& ctx, Rows x, Rows out) const;

 private:
  void block(ExecContext& ctx, const LlamaBlock& layer, const kernels::KvLayout& cache, std::int64_t first_position,
             Rows x, std::int64_t n_out) const;

  LlamaConfig config_;
  TensorView embedding_;
  std::vector<LlamaBlock> blocks_;
  RmsNorm norm_;
  Linear head_;
  std::vector<float> cos_, sin_;  // [max_context, head_dim / 2]
};

}  // namespace vila
