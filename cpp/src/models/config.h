// The typed form of config.json (docs/FORMATS.md). A model is its numbers: no model names here or below.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/json.h"

namespace vila {

struct LlamaConfig {
  std::int64_t dim, n_layers, n_heads, n_kv_heads, head_dim, ffn_dim, vocab_size, max_context;
  float norm_eps, rope_theta;
  bool attention_bias, mlp_bias;
  std::vector<std::int32_t> eos_token_ids;
};

struct VisionConfig {
  enum class Kind : std::uint8_t { siglip, intern_vit } kind;
  std::int64_t dim, n_layers, n_heads, ffn_dim, image_size, patch_size;
  float norm_eps;
  bool gelu_tanh;         ///< else the exact erf form
  bool drop_class_token;  ///< the first row is not handed to the projector
  bool qk_norm;

  [[nodiscard]] std::int64_t grid() const { return image_size / patch_size; }
  [[nodiscard]] bool has_class_token() const { return kind == Kind::intern_vit; }
  /// Rows that leave the tower for one picture or tile.
  [[nodiscard]] std::int64_t n_features() const {
    return grid() * grid() + (has_class_token() && !drop_class_token ? 1 : 0);
  }
};

/// S2 multi-scale wrapper (Shi et al., arXiv:2403.13043).
struct S2Config {
  std::vector<std::int64_t> scales;  ///< ascending, pixels
  std::int64_t max_split;            ///< side of a tile, pixels
};

struct ProjectorConfig {
  enum class Kind : std::uint8_t { identity, linear, mlp_gelu, mlp_downsample } kind;
  std::int64_t in_dim, out_dim, depth;
};

struct ImageConfig {
  std::int64_t size;
  bool pad;  ///< pad to a square first, else squash
  double rescale;
  std::array<float, 3> mean, std;
};

struct ModelConfig {
  LlamaConfig llm;
  VisionConfig vision;
  std::optional<S2Config> s2;
  ProjectorConfig projector;
  ImageConfig image;
  std::int64_t n_video_frames;
  std::string conv_mode;
  std::string source_name;

  /// Throws CheckpointError with path, expected and found.
  static ModelConfig from_json(const Json& json);
};

}  // namespace vila
