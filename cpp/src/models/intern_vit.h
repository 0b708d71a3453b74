// InternViT (Chen et al., arXiv:2312.14238): class token, RMSNorm, fused qkv, q/k norm over the whole width, layer
// scale.
#pragma once

#include <vector>

#include "io/checkpoint.h"
#include "layers/linear.h"
#include "layers/norm.h"
#include "models/config.h"

namespace vila {

struct InternVitBlock {
  RmsNorm norm1, norm2, q_norm, k_norm;
  Linear qkv, proj, fc1, fc2;
  const float* scale1 = nullptr;  // [C]
  const float* scale2 = nullptr;  // [C]

  InternVitBlock(const VisionConfig& config, const WeightScope& scope);
};

class InternVitTower {
 public:
  /// Binds `vision.*`.
  InternVitTower(const VisionConfig& config, const WeightScope& scope);

  /// pixels [3, S, S] -> features [P or P + 1, C]; the class token is row 0 where it is kept. Throws Cancelled between
  /// layers.
  void forward(ExecContext& ctx, const float* pixels, Rows features) const;

 private:
  void block(ExecContext& ctx, const InternVitBlock& layer, Rows x) const;

  VisionConfig config_;
  Linear patch_;
  const float* class_token_ = nullptr;  // [C]
  const float* positions_ = nullptr;    // [P + 1, C]
  std::vector<InternVitBlock> blocks_;
};

}  // namespace vila
