// From vision features to rows of the language model (VILA, arXiv:2312.07533).
#pragma once

#include <vector>

#include "io/checkpoint.h"
#include "layers/linear.h"
#include "layers/norm.h"
#include "models/config.h"

namespace vila {

class Projector {
 public:
  /// Binds `projector.*`.
  Projector(const ProjectorConfig& config, const WeightScope& scope);

  /// Rows that come out for n features (a square grid where the projector downsamples).
  [[nodiscard]] std::int64_t n_tokens(std::int64_t n_features) const;
  /// features [P, Cv] -> out [n_tokens(P), C].
  void forward(ExecContext& ctx, Rows features, Rows out) const;

 private:
  ProjectorConfig config_;
  LayerNorm norm_;  // mlp_downsample only
  std::vector<Linear> linears_;
};

/// Gathers each 2 x 2 block of a row-major grid of features [g * g, C] into one row [ceil(g/2)^2, 4 C]: channels of
/// (0,0), (0,1), (1,0), (1,1). An odd grid gets a zero row and column at its end. Rows leave in column-major order of
/// blocks, as the VILA 1.5 weights were trained.
void space_to_depth(Rows features, Rows out);

}  // namespace vila
