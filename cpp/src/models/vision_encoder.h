// From a picture to rows of the language model: preprocessing, tower (with S2 where the checkpoint asks for it),
// projector.
#pragma once

#include <span>
#include <variant>
#include <vector>

#include "image/processor.h"
#include "models/intern_vit.h"
#include "models/projector.h"
#include "models/siglip.h"
#include "vila/image.h"

namespace vila {

class VisionEncoder {
 public:
  /// Binds `vision.*` and `projector.*`.
  VisionEncoder(const ModelConfig& config, const WeightScope& root);

  [[nodiscard]] std::int64_t image_size() const { return config_.image.size; }
  [[nodiscard]] std::int64_t n_features() const { return config_.vision.n_features(); }
  [[nodiscard]] std::int64_t feature_dim() const { return config_.projector.in_dim; }
  /// Rows that one picture takes in the language model.
  [[nodiscard]] std::int64_t n_tokens() const { return projector_.n_tokens(n_features()); }

  /// Resized and normalised pixels [3, S, S].
  [[nodiscard]] std::vector<float> preprocess(ImageView image) const;
  /// pixels [3, S, S] -> the selected hidden state, scales merged: features [P, Cv].
  void features(ExecContext& ctx, std::span<const float> pixels, Rows features) const;
  /// pixels [3, S, S] -> out [n_tokens, C].
  void encode(ExecContext& ctx, std::span<const float> pixels, Rows out) const;

 private:
  void tower(ExecContext& ctx, const float* pixels, Rows features) const;
  void multi_scale(ExecContext& ctx, std::span<const float> pixels, Rows features) const;

  ModelConfig config_;
  ImageProcessor processor_;
  std::variant<SiglipTower, InternVitTower> tower_;
  Projector projector_;
};

}  // namespace vila
