// The SigLIP vision transformer (Zhai et al., arXiv:2303.15343) up to the hidden state that the projector reads.
#pragma once

#include <vector>

#include "io/checkpoint.h"
#include "layers/linear.h"
#include "layers/norm.h"
#include "models/config.h"

namespace vila {

struct SiglipBlock {
  LayerNorm norm1, norm2;
  Linear q, k, v, out, fc1, fc2;

  SiglipBlock(const VisionConfig& config, const WeightScope& scope);
};

class SiglipTower {
 public:
  /// Binds `vision.*`.
  SiglipTower(const VisionConfig& config, const WeightScope& scope);

  /// pixels [3, S, S] of one tile -> features [P, C], P = grid * grid. Throws Cancelled between layers.
  void forward(ExecContext& ctx, const float* pixels, Rows features) const;

 private:
  void block(ExecContext& ctx, const SiglipBlock& layer, Rows x) const;

  VisionConfig config_;
  Linear patch_;
  const float* positions_ = nullptr;  // [P, C]
  std::vector<SiglipBlock> blocks_;
};

/// The patches of pixels [3, S, S] as rows [grid * grid, 3 * p * p], channel-major inside a row; pixels beyond the last
/// whole patch are not read.
void patchify(const VisionConfig& config, const float* pixels, Rows out);

}  // namespace vila
